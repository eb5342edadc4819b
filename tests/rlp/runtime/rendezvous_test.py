"""Processes answer the roll, agree, and notice who is gone. Threads stand for processes here."""

import concurrent.futures
import contextlib
import json
import queue
import socket
import threading
import time

import pytest

from rlp.runtime import rendezvous
from rlp.runtime.errors import UserError
from tests.support.hosts import free_address


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rendezvous, "_LATE_S", 0.5)
    monkeypatch.setattr(rendezvous, "_HELLO_S", 0.5)
    monkeypatch.setattr(rendezvous, "BEAT_S", 0.05)


def roll(*given, address=None, timeout=10.0):
    """Outcome of `call_roll` for every (number, process, facts): its peers, or the refusal."""
    address = address or free_address()

    def call(one):
        try:
            return rendezvous.call_roll(address, *one, timeout)
        except UserError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(call, given))


def close(*outcomes):
    for peers in outcomes:
        for peer in peers:
            peer.socket.close()


def test_all_who_agree_are_connected_to_process_0():
    first, *others = roll(*((4, i, {"x": 1}) for i in range(4)))
    assert sorted(peer.who.process for peer in first) == [1, 2, 3]
    assert [[peer.who.process for peer in peers] for peers in others] == [[0], [0], [0]]
    close(first, *others)


def test_alone_there_is_nobody_to_wait_for():
    assert roll((1, 0, {})) == [[]]


def test_the_port_is_free_again_for_the_coordinator():
    address = free_address()
    outcomes = roll((2, 0, {}), (2, 1, {}), address=address)
    with rendezvous._listener(address):
        pass
    close(*outcomes)


def test_what_differs_is_refused_on_all_with_the_same_line():
    lines = roll((3, 0, {"x": 1}), (3, 1, {"x": 1}), (3, 2, {"x": 7}))
    host = socket.gethostname()
    assert set(lines) == {lines[0]}
    assert f"x is 1 on processes 0, 1 and 7 on process 2 on {host}" in lines[0]


@pytest.mark.parametrize("numbers", [(2, 3), (3, 2), (2, 3, 3), (3, 2, 2)])
def test_another_number_of_processes_is_refused_on_all_at_once(numbers):
    start = time.monotonic()
    lines = roll(*((max(n, i + 1), i, {}) for i, n in enumerate(numbers)), timeout=60)
    assert time.monotonic() - start < 20
    for line in lines:
        assert f"--num_processes is {numbers[0]} on process 0 on " in line


def test_a_number_that_is_given_twice_is_refused_on_all():
    lines = roll((3, 0, {}), (3, 1, {}), (3, 1, {}))
    assert all(line.startswith("two processes have --process_id=1") for line in lines), lines


def test_process_0_names_those_who_do_not_come():
    first, second = roll((4, 0, {}), (4, 2, {}), timeout=1)
    assert "2 did not come: process 1, 3; " in first
    assert "did not come" in second or "not all processes joined" in second


def test_who_knocks_but_is_no_process_is_sent_away():
    address = free_address()
    host, port = address.split(":")

    def knock():
        end = time.monotonic() + 5
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "1"}\n', b"", b"\xff\n"):
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    sock = socket.create_connection((host, int(port)), 1)
                    sock.sendall(words)
                    sock.close()
                    break

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(roll, (2, 0, {}), address=address)
        pool.submit(knock).result()
        (second,) = roll((2, 1, {}), address=address)
        (outcome,) = first.result()
    assert [peer.who.process for peer in outcome] == [1]
    close(outcome, second)


def test_a_process_that_died_while_it_waited_may_come_again():
    address = free_address()
    host, port = address.split(":")
    hello = {"process": 1, "number": 3, "host": "old", "facts": {}}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(roll, (3, 0, {}), address=address)
        for _ in range(100):
            with contextlib.suppress(OSError):
                sock = socket.create_connection((host, int(port)), 1)
                break
            time.sleep(0.05)
        sock.sendall(json.dumps(hello).encode() + b"\n")
        time.sleep(0.2)
        sock.close()
        others = roll((3, 1, {}), (3, 2, {}), address=address)
        (outcome,) = first.result()
    assert sorted(peer.who.process for peer in outcome) == [1, 2]
    close(outcome, *others)


@contextlib.contextmanager
def watched(number):
    """The watches of some processes, and what each of them hears of an end."""
    outcomes = roll(*((number, i, {}) for i in range(number)))
    heard = [queue.Queue() for _ in outcomes]
    watches = [rendezvous.Watch(p, h.put) for p, h in zip(outcomes, heard, strict=True)]
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
                assert end["lost"] == rendezvous.GONE


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
    monkeypatch.setattr(rendezvous, "SILENCE_S", 1.0)
    outcomes = roll(*((3, i, {}) for i in range(3)))
    heard = queue.Queue()
    watch = rendezvous.Watch(outcomes[0], heard.put)
    speaking = threading.Event()

    def speak():
        while not speaking.wait(0.05):
            outcomes[1][0].send(None)

    thread = threading.Thread(target=speak)
    thread.start()
    watch.start()
    end = heard.get(timeout=20)
    assert (end["process"], end["lost"]) == (2, rendezvous.SILENT)
    speaking.set()
    thread.join()
    watch.leave()
    close(*outcomes[1:])


def test_a_watch_that_was_stopped_itself_takes_nobody_for_dead(monkeypatch):
    """As after a laptop has slept, or a process was stopped and continued."""
    monkeypatch.setattr(rendezvous, "SILENCE_S", 0.4)
    now = [0.0]
    monkeypatch.setattr(rendezvous.time, "monotonic", lambda: now[0])
    with socket.socket() as unused:
        peer = rendezvous.Peer(rendezvous.Who(1, "b"), unused)
        watch = rendezvous.Watch([peer], pytest.fail)
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
