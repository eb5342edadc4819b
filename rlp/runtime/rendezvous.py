"""Connect the processes of a multihost run before JAX starts, and compare their inputs.

Process 0 listens at the address of the coordinator. Every other process connects to it and sends
its number, its host and its inputs. Once all processes are connected and agree, process 0 closes
its listener, so that JAX's coordinator can open the same port. The connections stay open until the
end of the run (`rlp.runtime.heartbeat`).
"""

import contextlib
import json
import socket
import time
from typing import NoReturn

from rlp.runtime.consistency import Member, differences, refusal
from rlp.runtime.errors import UserError
from rlp.runtime.peers import Message, Peer, is_closed, prepare, read_message

_HELLO_S = 5.0  # seconds within which a new connection must identify itself
_LATE_S = 3.0  # seconds within which processes that connect after an error still receive it
_RETRY_S = 0.2  # seconds between two attempts to connect


def join(
    address: str, num_processes: int, process: int, facts: Message, timeout: float
) -> list[Peer]:
    """Wait until all processes are connected, and compare their inputs.

    Args:
      address: "HOST:PORT" of process 0.
      num_processes: Number of processes.
      process: Number of this process.
      facts: The inputs that must be the same on all processes; see `consistency.differences`.
      timeout: Seconds to wait for the other processes.

    Returns:
      On process 0 the connections to all other processes, on the others the one to process 0.

    Raises:
      UserError: On all processes if their inputs differ; also if not all processes connect in time,
        or if the port is in use.
    """
    me = Member(process, socket.gethostname())
    if process == 0:
        return _Rendezvous(address, num_processes, me, facts, timeout).accept_all()
    return [_connect(address, num_processes, me, facts, timeout)]


class _Rendezvous:
    """The side of process 0."""

    def __init__(
        self, address: str, num_processes: int, me: Member, facts: Message, timeout: float
    ) -> None:
        self._address, self._num_processes, self._me, self._timeout = (
            address,
            num_processes,
            me,
            timeout,
        )
        self._facts = {me: facts}
        self._peers: dict[int, Peer] = {}

    def accept_all(self) -> list[Peer]:
        end = time.monotonic() + self._timeout
        with _listener(self._address) as self._listener:
            while not self._complete():
                if (sock := self._accepted(end)) is None:
                    self._refuse(self._missing(), late=False)
                if (hello := _hello(sock)) is not None:
                    self._admit(sock, hello)
            if lines := differences(dict(sorted(self._facts.items(), key=lambda item: item[0]))):
                self._refuse(refusal(lines), late=False)
        for peer in self._peers.values():
            peer.send({"go": self._me.host})
        return list(self._peers.values())

    def _complete(self) -> bool:
        """Whether all processes are connected. One that died while it waited may connect again."""
        if len(self._peers) < self._num_processes - 1:
            return False
        for peer in [peer for peer in self._peers.values() if is_closed(peer.socket)]:
            self._drop(peer)
        return len(self._peers) == self._num_processes - 1

    def _drop(self, peer: Peer) -> None:
        peer.socket.close()
        del self._peers[peer.member.process], self._facts[peer.member]

    def _accepted(self, end: float) -> socket.socket | None:
        self._listener.settimeout(max(end - time.monotonic(), 0.001))
        try:
            return self._listener.accept()[0]
        except TimeoutError:
            return None

    def _admit(self, sock: socket.socket, hello: Message) -> None:
        new = Peer(Member(hello["process"], hello["host"]), sock)
        process = new.member.process
        if hello["num_processes"] != self._num_processes:
            numbers = {self._me: self._num_processes, new.member: hello["num_processes"]}
            lines = differences({member: {"--num_processes": n} for member, n in numbers.items()})
            self._refuse(refusal(lines), new)
        if process not in range(self._num_processes):
            self._refuse(
                f"--process_id={process} on {new.member.host} is out of range; give each process a "
                f"number from 0 to {self._num_processes - 1}",
                new,
            )
        former = self._peers.get(process)
        if process == 0 or (former is not None and not is_closed(former.socket)):
            host = self._me.host if former is None else former.member.host
            self._refuse(
                f"two processes have --process_id={process}, on {host} and on {new.member.host}; "
                "give each process its own number",
                new,
            )
        if former is not None:
            self._drop(former)
        self._peers[process], self._facts[new.member] = new, hello["facts"]

    def _missing(self) -> str:
        absent = [i for i in range(1, self._num_processes) if i not in self._peers]
        which = ", ".join(map(str, absent[:5])) + (", …" if len(absent) > 5 else "")
        return (
            f"{self._me} waited {self._timeout:.0f} s (--join_timeout) at {self._address}, but "
            f"{len(absent)} of {self._num_processes} processes did not connect: process {which}; "
            "start all processes with the same --coordinator_address and --num_processes"
        )

    def _refuse(self, line: str, *more: Peer, late: bool = True) -> NoReturn:
        """Send an error to all connected processes and to those that connect soon; raise it."""
        for peer in (*self._peers.values(), *more):
            peer.send({"refused": line})
        end = time.monotonic() + _LATE_S
        while late and (sock := self._accepted(end)) is not None:
            if _hello(sock) is not None:  # closing with unread data would discard the answer
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
            f"opened ({error.strerror}); use another port, the same on all hosts"
        ) from error


def _hello(sock: socket.socket) -> Message | None:
    """Read the first message of a process; close the connection and return None for any other."""
    hello = None
    with contextlib.suppress(OSError):
        hello = read_message(sock, _HELLO_S)
    kinds = {"process": int, "num_processes": int, "host": str, "facts": dict}
    if hello is None or any(type(hello.get(name)) is not kind for name, kind in kinds.items()):
        sock.close()
        return None
    prepare(sock)
    return hello


def _connect(address: str, num_processes: int, me: Member, facts: Message, timeout: float) -> Peer:
    """Connect to process 0 and wait until all processes have joined."""
    end = time.monotonic() + timeout
    hello = {"process": me.process, "num_processes": num_processes, "host": me.host, "facts": facts}
    host, _, port = address.rpartition(":")
    connected = False
    while (remaining := end - time.monotonic()) > 0:
        sock = reply = None
        with contextlib.suppress(OSError):
            sock = socket.create_connection((host.strip("[]"), int(port)), min(remaining, _HELLO_S))
            sock.sendall(json.dumps(hello).encode() + b"\n")
            connected = True
            reply = read_message(sock, end - time.monotonic())
        if reply is not None and "refused" in reply:
            raise UserError(str(reply["refused"]))
        if sock is not None and reply is not None and "go" in reply:
            prepare(sock)
            return Peer(Member(0, str(reply["go"])), sock)
        if sock is not None:
            sock.close()
        time.sleep(min(_RETRY_S, max(0.0, end - time.monotonic())))
    raise UserError(f"{me} waited {timeout:.0f} s (--join_timeout) {_reason(address, connected)}")


def _reason(address: str, connected: bool) -> str:
    if connected:
        return (
            f"after it connected to process 0 at {address}, but not all processes joined; start "
            "all processes with the same --num_processes"
        )
    return (
        f"for process 0 at {address}, but nothing answered there; start process 0 on that host, or "
        "correct --coordinator_address"
    )
