"""Processes notice who is gone. Threads stand for processes here."""

import contextlib
import queue
import socket
import threading

import pytest

from rlp.runtime import heartbeat
from rlp.runtime.consistency import Who
from rlp.runtime.peers import Peer
from tests.support.hosts import close, roll


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)


@contextlib.contextmanager
def watched(number):
    """The watches of some processes, and what each of them hears of an end."""
    outcomes = roll(*((number, i, {}) for i in range(number)))
    heard = [queue.Queue() for _ in outcomes]
    watches = [heartbeat.Heartbeat(p, h.put) for p, h in zip(outcomes, heard, strict=True)]
    for watch in watches:
        watch.start()
    try:
        yield watches, heard, outcomes
    finally:
        for watch in watches:
            watch.leave()


def kill(watch, peers):
    """Ends a watch as a kill does, which closes the connections without a word."""
    watch._stopped.set()
    watch._thread.join()
    for peer in peers:
        peer.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("victim", [0, 2])
def test_all_others_hear_who_is_killed(victim):
    with watched(4) as (watches, heard, peers):
        kill(watches[victim], peers[victim])
        for i, ends in enumerate(heard):
            if i != victim:
                end = ends.get(timeout=10)
                assert (end["process"], end["host"]) == (victim, socket.gethostname())
                assert end["lost"] == heartbeat.GONE


@pytest.mark.parametrize("teller", [0, 1])
def test_what_a_process_tells_of_its_end_comes_to_all_others(teller):
    with watched(3) as (watches, heard, _):
        end = {"process": teller, "message": "é" * 5000}
        watches[teller].tell(end)
        for i, ends in enumerate(heard):
            if i != teller:
                assert ends.get(timeout=10) == end
        assert heard[teller].empty()


def test_an_orderly_end_is_no_loss():
    with watched(3) as (watches, heard, _):
        for watch in watches:
            watch.leave()
        assert all(ends.empty() for ends in heard)


def test_a_process_that_says_nothing_is_gone_and_one_that_speaks_is_not(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE_S", 1.0)
    outcomes = roll(*((3, i, {}) for i in range(3)))
    heard = queue.Queue()
    watch = heartbeat.Heartbeat(outcomes[0], heard.put)
    speaking = threading.Event()

    def speak():
        while not speaking.wait(0.05):
            outcomes[1][0].send(None)

    thread = threading.Thread(target=speak)
    thread.start()
    watch.start()
    end = heard.get(timeout=20)
    assert (end["process"], end["lost"]) == (2, heartbeat.SILENT)
    speaking.set()
    thread.join()
    watch.leave()
    close(*outcomes[1:])


def test_a_watch_that_was_stopped_itself_takes_nobody_for_dead(monkeypatch):
    """As after a laptop has slept, or a process was stopped and continued."""
    monkeypatch.setattr(heartbeat, "SILENCE_S", 0.4)
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    with socket.socket() as unused:
        peer = Peer(Who(1, "b"), unused)
        watch = heartbeat.Heartbeat([peer], pytest.fail)
        turns = [0.1, 0.2, 900.0, 900.1]

        class Selector:
            def select(self, _):
                if turns:
                    now[0] = turns.pop(0)
                else:
                    watch._stopped.set()
                return []

        watch._selector = Selector()
        monkeypatch.setattr(peer, "send", lambda message: None)
        watch._run()
    assert peer.heard == 900.0
