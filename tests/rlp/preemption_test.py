"""SIGTERM is a request: noticed where the run asks, heard by all who wait for it."""

import os
import signal

import pytest

from rlp.preemption import Preempted, Preemption


@pytest.fixture(autouse=True)
def heard():
    """What the handler that stood there before is called with."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, before)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_nothing_happens_without_a_signal(heard):
    handler = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        preemption.check()
        assert list(preemption.watch("abc")) == list("abc")
    assert heard == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_waits_until_the_run_asks(heard):
    handler = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
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

    with Preemption() as preemption:
        if at == 0:
            terminate()
        if at == 3:  # there is no next item: the loop's own end comes first
            watch(preemption)
        else:
            with pytest.raises(Preempted):
                watch(preemption)
    assert seen == list(range(at))


def test_a_signal_is_passed_on_to_the_one_around():
    with Preemption() as outer:
        with Preemption():
            terminate()
        with pytest.raises(Preempted):
            outer.check()


def test_once_entered_again_it_has_forgotten():
    preemption = Preemption()
    with preemption:
        terminate()
    with preemption:
        preemption.check()


def test_what_came_late_reaches_the_handler_from_before(heard):
    with Preemption():
        terminate()
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_with_the_default_handler_a_finished_run_is_not_killed():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Preemption():
        terminate()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
