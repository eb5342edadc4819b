"""How the processes of a run meet, before JAX starts.

Process 0 first listens at the coordinator's address itself. Every other process connects to it and
says who it is and what it was given. Once all are there and agree, process 0 closes its listener,
so that JAX's coordinator can open the same port, and the connections stay open until the end of the
run (`rlp.runtime.heartbeat`).
"""

import contextlib
import json
import socket
import time
from typing import NoReturn

from rlp.runtime.consistency import Who, differences, refusal
from rlp.runtime.errors import UserError
from rlp.runtime.peers import Message, Peer, is_closed, prepare, read_message

_HELLO_S = 5.0  # in which whoever connects must say who it is
_LATE_S = 3.0  # in which processes that come after a refusal still hear it
_RETRY_S = 0.2


def call_roll(
    address: str, number: int, process: int, facts: Message, timeout: float
) -> list[Peer]:
    """Waits until all processes are there, and compares what they were given.

    Args:
      address: "HOST:PORT" of process 0.
      number: how many processes there are.
      process: which of them this is.
      facts: what all must have been given alike, as `consistency.differences` takes it.
      timeout: seconds to wait.

    Returns:
      The others on process 0; process 0 on the others.

    Raises:
      UserError: on all processes, if they disagree; if not all come in time; if the port is taken.
    """
    me = Who(process, socket.gethostname())
    if process == 0:
        return _Roll(address, number, me, facts, timeout).call()
    return [_answer(address, number, me, facts, timeout)]


class _Roll:
    """The roll as process 0 calls it."""

    def __init__(self, address: str, number: int, me: Who, facts: Message, timeout: float) -> None:
        self._address, self._number, self._me, self._timeout = address, number, me, timeout
        self._facts = {me: facts}
        self._peers: dict[int, Peer] = {}

    def call(self) -> list[Peer]:
        end = time.monotonic() + self._timeout
        with _listener(self._address) as self._listener:
            while not self._complete():
                if (sock := self._accepted(end)) is None:
                    self._refuse(self._missing(), late=False)
                if (hello := _hello(sock)) is not None:
                    self._admit(sock, hello)
            if found := differences(dict(sorted(self._facts.items(), key=lambda one: one[0]))):
                self._refuse(refusal(found), late=False)
        for peer in self._peers.values():
            peer.send({"go": self._me.host})
        return list(self._peers.values())

    def _complete(self) -> bool:
        """Whether all are there and alive; who has died while it waited may be started again."""
        if len(self._peers) < self._number - 1:
            return False
        for peer in [peer for peer in self._peers.values() if is_closed(peer.socket)]:
            self._drop(peer)
        return len(self._peers) == self._number - 1

    def _drop(self, peer: Peer) -> None:
        peer.socket.close()
        del self._peers[peer.who.process], self._facts[peer.who]

    def _accepted(self, end: float) -> socket.socket | None:
        self._listener.settimeout(max(end - time.monotonic(), 0.001))
        try:
            return self._listener.accept()[0]
        except TimeoutError:
            return None

    def _admit(self, sock: socket.socket, hello: Message) -> None:
        new = Peer(Who(hello["process"], hello["host"]), sock)
        if hello["number"] != self._number:
            numbers = {self._me: self._number, new.who: hello["number"]}
            found = differences({who: {"--num_processes": n} for who, n in numbers.items()})
            self._refuse(refusal(found), new)
        if new.who.process not in range(self._number):
            self._refuse(f"{new.who} has a number that is not one of 0 to {self._number - 1}", new)
        former = self._peers.get(new.who.process)
        if new.who.process == 0 or (former is not None and not is_closed(former.socket)):
            host = self._me.host if former is None else former.who.host
            self._refuse(
                f"two processes have --process_id={new.who.process}, on {host} and on "
                f"{new.who.host}; give each process its own",
                new,
            )
        if former is not None:
            self._drop(former)
        self._peers[new.who.process], self._facts[new.who] = new, hello["facts"]

    def _missing(self) -> str:
        absent = [i for i in range(1, self._number) if i not in self._peers]
        which = ", ".join(map(str, absent[:5])) + (", …" if len(absent) > 5 else "")
        return (
            f"{self._me} waited {self._timeout:.0f} s at {self._address} for the other processes "
            f"of {self._number}, but {len(absent)} did not come: process {which}; start all of "
            f"them, with the same --num_processes (--join_timeout={self._timeout:.0f})"
        )

    def _refuse(self, line: str, *more: Peer, late: bool = True) -> NoReturn:
        """Tells everyone who has come, and who comes in the next moments, and raises."""
        for peer in (*self._peers.values(), *more):
            peer.send({"refused": line})
        end = time.monotonic() + _LATE_S
        while late and (sock := self._accepted(end)) is not None:
            if _hello(sock) is not None:  # unread words would take the answer with them
                Peer(self._me, sock).send({"refused": line})
                sock.close()
        raise UserError(line)


def _listener(address: str) -> socket.socket:
    port = int(address.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port),
            family=socket.AF_INET6 if both else socket.AF_INET,
            backlog=1024,
            dualstack_ipv6=both,
        )
    except OSError as error:
        raise UserError(
            f"--coordinator_address={address}: port {port} of {socket.gethostname()} cannot be "
            f"opened ({error.strerror}); take another port, the same on all hosts"
        ) from error


def _hello(sock: socket.socket) -> Message | None:
    """What a process says when it connects; None, and no connection, for anything else."""
    hello = None
    with contextlib.suppress(OSError):
        hello = read_message(sock, _HELLO_S)
    kinds = {"process": int, "number": int, "host": str, "facts": dict}
    if hello is None or any(type(hello.get(name)) is not kind for name, kind in kinds.items()):
        sock.close()
        return None
    prepare(sock)
    return hello


def _answer(address: str, number: int, me: Who, facts: Message, timeout: float) -> Peer:
    """The connection to process 0 of a process that has answered its name."""
    end = time.monotonic() + timeout
    hello = {"process": me.process, "number": number, "host": me.host, "facts": facts}
    host, _, port = address.rpartition(":")
    met = False
    while (left := end - time.monotonic()) > 0:
        sock = reply = None
        with contextlib.suppress(OSError):
            sock = socket.create_connection((host.strip("[]"), int(port)), min(left, _HELLO_S))
            sock.sendall(json.dumps(hello).encode() + b"\n")
            met = True
            reply = read_message(sock, end - time.monotonic())
        if reply is not None and "refused" in reply:
            raise UserError(str(reply["refused"]))
        if sock is not None and reply is not None and "go" in reply:
            prepare(sock)
            return Peer(Who(0, str(reply["go"])), sock)
        if sock is not None:
            sock.close()
        time.sleep(min(_RETRY_S, max(0.0, end - time.monotonic())))
    raise UserError(
        f"{me} of {number} {_waited(address, timeout, met)} (--join_timeout={timeout:.0f})"
    )


def _waited(address: str, timeout: float, met: bool) -> str:
    if met:
        return (
            f"found process 0 at {address}, but not all processes joined it within {timeout:.0f} "
            "s; start all of them, with the same --num_processes"
        )
    return (
        f"waited {timeout:.0f} s for process 0 at {address}, and nothing answers there; start "
        "process 0 on that host, or correct --coordinator_address"
    )
