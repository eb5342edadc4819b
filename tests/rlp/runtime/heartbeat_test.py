"""Processes detect when another one is gone. These tests use threads instead of processes."""

import contextlib
import queue
import socket
import threading

import pytest

from rlp.runtime import heartbeat
from rlp.runtime.consistency import Member
from rlp.runtime.peers import Peer
from tests.support.hosts import close, join_all


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)


@contextlib.contextmanager
def watched(number):
    """Yield the heartbeats of some processes, queues of the ends they report, and their peers."""
    connections = join_all(*((number, i, {}) for i in range(number)))
    reported = [queue.Queue() for _ in connections]
    watches = [heartbeat.Heartbeat(p, r.put) for p, r in zip(connections, reported, strict=True)]
    for watch in watches:
        watch.start()
    try:
        yield watches, reported, connections
    finally:
        for watch in watches:
            watch.leave()


def kill(watch, peers):
    """End a heartbeat like SIGKILL does: the connections close without a message."""
    watch._stopped.set()
    watch._thread.join()
    for peer in peers:
        peer.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("victim", [0, 2])
def test_all_others_hear_who_is_killed(victim):
    with watched(4) as (watches, reported, peers):
        kill(watches[victim], peers[victim])
        for i, ends in enumerate(reported):
            if i != victim:
                end = ends.get(timeout=10)
                assert (end["process"], end["host"]) == (victim, socket.gethostname())
                assert end["lost"] == heartbeat.GONE


@pytest.mark.parametrize("sender", [0, 1])
def test_a_process_that_ends_notifies_all_others(sender):
    with watched(3) as (watches, reported, _):
        end = {"process": sender, "message": "é" * 5000}
        watches[sender].notify(end)
        for i, ends in enumerate(reported):
            if i != sender:
                assert ends.get(timeout=10) == end
        assert reported[sender].empty()


def test_an_orderly_end_is_no_loss():
    with watched(3) as (watches, reported, _):
        for watch in watches:
            watch.leave()
        assert all(ends.empty() for ends in reported)


def test_a_process_that_says_nothing_is_gone_and_one_that_speaks_is_not(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE_S", 1.0)
    connections = join_all(*((3, i, {}) for i in range(3)))
    reported = queue.Queue()
    watch = heartbeat.Heartbeat(connections[0], reported.put)
    stopped = threading.Event()

    def beat():
        while not stopped.wait(0.05):
            connections[1][0].send(None)

    thread = threading.Thread(target=beat)
    thread.start()
    watch.start()
    end = reported.get(timeout=20)
    assert (end["process"], end["lost"]) == (2, heartbeat.SILENT)
    stopped.set()
    thread.join()
    watch.leave()
    close(*connections[1:])


def test_a_watch_that_was_stopped_itself_takes_nobody_for_dead(monkeypatch):
    """For example after a laptop has slept, or after SIGSTOP and SIGCONT."""
    monkeypatch.setattr(heartbeat, "SILENCE_S", 0.4)
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    with socket.socket() as unused:
        peer = Peer(Member(1, "b"), unused)
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
