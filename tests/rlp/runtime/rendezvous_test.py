"""Processes connect and compare their inputs. These tests use threads instead of processes."""

import concurrent.futures
import contextlib
import json
import socket
import time

import pytest

from rlp.runtime import rendezvous
from tests.support.hosts import close, free_address, join_all


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(rendezvous, "_LATE_S", 0.5)
    monkeypatch.setattr(rendezvous, "_HELLO_S", 0.5)


def test_all_who_agree_are_connected_to_process_0():
    first, *others = join_all(*((4, i, {"x": 1}) for i in range(4)))
    assert sorted(peer.member.process for peer in first) == [1, 2, 3]
    assert [[peer.member.process for peer in peers] for peers in others] == [[0], [0], [0]]
    close(first, *others)


def test_alone_there_is_nobody_to_wait_for():
    assert join_all((1, 0, {})) == [[]]


def test_the_port_is_free_again_for_the_coordinator():
    address = free_address()
    connections = join_all((2, 0, {}), (2, 1, {}), address=address)
    with rendezvous._listener(address):
        pass
    close(*connections)


def test_a_difference_is_refused_on_all_with_the_same_line():
    lines = join_all((3, 0, {"x": 1}), (3, 1, {"x": 1}), (3, 2, {"x": 7}))
    host = socket.gethostname()
    assert set(lines) == {lines[0]}
    assert f"x is 1 on processes 0, 1 and 7 on process 2 on {host}" in lines[0]


@pytest.mark.parametrize("numbers", [(2, 3), (3, 2), (2, 3, 3), (3, 2, 2)])
def test_another_number_of_processes_is_refused_on_all_at_once(numbers):
    start = time.monotonic()
    lines = join_all(*((max(n, i + 1), i, {}) for i, n in enumerate(numbers)), timeout=60)
    assert time.monotonic() - start < 20
    for line in lines:
        assert f"--num_processes is {numbers[0]} on process 0 on " in line


def test_a_process_id_that_is_given_twice_is_refused_on_all():
    lines = join_all((3, 0, {}), (3, 1, {}), (3, 1, {}))
    assert all(line.startswith("two processes have --process_id=1") for line in lines), lines


def test_process_0_names_the_processes_that_do_not_connect():
    first, second = join_all((4, 0, {}), (4, 2, {}), timeout=1)
    assert "2 of 4 processes did not connect: process 1, 3; " in first
    assert "did not connect" in second or "not all processes joined" in second


def test_other_clients_are_turned_away():
    address = free_address()
    host, port = address.split(":")

    def knock():
        end = time.monotonic() + 5
        for line in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process": "1"}\n', b"", b"\xff\n"):
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    sock = socket.create_connection((host, int(port)), 1)
                    sock.sendall(line)
                    sock.close()
                    break

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(join_all, (2, 0, {}), address=address)
        pool.submit(knock).result()
        (second,) = join_all((2, 1, {}), address=address)
        (peers,) = first.result()
    assert [peer.member.process for peer in peers] == [1]
    close(peers, second)


def test_a_process_that_died_while_it_waited_may_connect_again():
    address = free_address()
    host, port = address.split(":")
    hello = {"process": 1, "num_processes": 3, "host": "old", "facts": {}}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(join_all, (3, 0, {}), address=address)
        for _ in range(100):
            with contextlib.suppress(OSError):
                sock = socket.create_connection((host, int(port)), 1)
                break
            time.sleep(0.05)
        sock.sendall(json.dumps(hello).encode() + b"\n")
        time.sleep(0.2)
        sock.close()
        others = join_all((3, 1, {}), (3, 2, {}), address=address)
        (peers,) = first.result()
    assert sorted(peer.member.process for peer in peers) == [1, 2]
    close(peers, *others)
