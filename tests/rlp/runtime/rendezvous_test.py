"""Processes answer the roll and agree. Threads stand for processes here."""

import concurrent.futures
import contextlib
import json
import socket
import time

import pytest

from rlp.runtime import rendezvous
from tests.support.hosts import close, free_address, roll


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rendezvous, "_LATE_S", 0.5)
    monkeypatch.setattr(rendezvous, "_HELLO_S", 0.5)


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
