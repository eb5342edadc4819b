"""While there is state to save, a signal is a request that the run notices at its next check."""

import contextlib
import os
import signal

import pytest

from rlp.runtime.preemption import Preempted, Preemption
from rlp.runtime.signals import ENDING


@pytest.fixture(autouse=True)
def heard():
    """Install a SIGTERM handler, and return the list of its calls."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, before)


def terminate(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def waiting():
    """Enter a Preemption after `wait`, that is, with state to save."""
    with Preemption() as preemption:
        preemption.wait()
        yield preemption


def test_nothing_happens_without_a_signal(heard):
    handler = signal.getsignal(signal.SIGTERM)
    with waiting() as preemption:
        preemption.check()
        assert list(preemption.watch("abc")) == list("abc")
    assert heard == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_waits_until_the_run_asks(heard):
    handler = signal.getsignal(signal.SIGTERM)
    with waiting() as preemption:
        terminate()
        terminate()
        done = True
        with pytest.raises(Preempted):
            preemption.check()
        with pytest.raises(Preempted):
            preemption.check()
        assert heard == []
    assert done
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("at", range(4))
def test_a_watched_loop_ends_before_its_next_item(at):
    seen = []

    def watch(preemption):
        for item in preemption.watch(range(3)):
            seen.append(item)
            if item == at - 1:
                terminate()

    with waiting() as preemption:
        if at == 0:
            terminate()
        if at == 3:  # there is no next item, so the loop ends normally
            watch(preemption)
        else:
            with pytest.raises(Preempted):
                watch(preemption)
    assert seen == list(range(at))


def test_a_signal_is_passed_on_to_the_one_around():
    with waiting() as outer:
        with waiting():
            terminate()
        with pytest.raises(Preempted):
            outer.check()


def test_once_entered_again_it_has_forgotten():
    preemption = Preemption()
    with preemption:
        preemption.wait()
        terminate()
    with preemption:
        preemption.wait()
        preemption.check()


def test_a_late_signal_reaches_the_previous_handler(heard):
    with waiting():
        terminate()
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_with_the_default_handler_a_finished_run_is_not_killed():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with waiting():
        terminate()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", ENDING)
def test_each_signal_waits_and_is_named(number):
    with waiting() as preemption:
        terminate(number)
        with pytest.raises(Preempted) as caught:
            preemption.check()
    assert caught.value.number == number


def test_before_there_is_state_to_save_a_signal_is_not_held_back(heard):
    with Preemption() as preemption:
        terminate()
        assert heard == [signal.SIGTERM]
        preemption.check()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with waiting() as preemption:
            terminate(signal.SIGHUP)
            preemption.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_does_not_wait():
    """Without `signals.install`, as in a notebook, it raises KeyboardInterrupt."""
    with waiting() as preemption:
        terminate(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            terminate(signal.SIGINT)
        with pytest.raises(Preempted):
            preemption.check()


def test_an_error_is_not_replaced_by_the_signal(heard):
    def fail():
        with waiting():
            terminate()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert heard == []
