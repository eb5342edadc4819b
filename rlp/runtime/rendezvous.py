"""Connections between the processes of a run: who is there before JAX starts, and who is gone.

Process 0 first listens at the coordinator's address itself. Every other process connects to it and
says who it is and what it was given. Once all are there and agree, process 0 closes its listener,
so that JAX's coordinator can open the same port, and the connections stay open until the end of the
run. The operating system closes those of a process that is killed, so the others know within
milliseconds; it probes those of a host that is down, without any help from Python. So neither a
long compilation nor a held GIL makes a process look dead, short of `SILENCE_S`.
"""

import contextlib
import dataclasses
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from rlp.runtime.consistency import Who, differences, refusal
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

BEAT_S = 2.0  # between two signs of life
PROBE_S = 20  # after which the system gives up a host that does not acknowledge anything
SILENCE_S = 60.0  # after which a process that is connected but says nothing counts as gone
_HELLO_S = 5.0  # in which whoever connects must say who it is
_LATE_S = 3.0  # in which processes that come after a refusal still hear it
_RETRY_S = 0.2
_SEND_S = 2.0
_LONGEST = 1 << 24  # bytes of a message

GONE = "is gone: it was killed, or it crashed"
UNREACHABLE = f"is gone: its host has not answered for {PROBE_S} s"
SILENT = f"is gone: it has said nothing for {SILENCE_S:.0f} s, as if it were frozen"

Message = Mapping[str, Any]


@dataclasses.dataclass
class Peer:
    """A process at the other end of a connection.

    Attributes:
      who: its number and host.
      socket: connected to it.
      heard: when it last said something, by `time.monotonic`.
      left: whether it has said that it leaves, so that its end is no loss.
      unread: the beginning of a message.
    """

    who: Who
    socket: socket.socket
    heard: float = 0.0
    left: bool = False
    unread: bytes = b""

    def send(self, message: Message | None) -> None:
        """Sends a message, or with None a sign of life; a peer that takes nothing is left to the
        watch."""
        text = b"\n" if message is None else json.dumps(message).encode() + b"\n"
        end = time.monotonic() + _SEND_S
        with contextlib.suppress(OSError):
            while text and time.monotonic() < end:
                try:
                    text = text[self.socket.send(text) :]
                except BlockingIOError:
                    if message is None:
                        return  # it has enough signs of life to read
                    time.sleep(0.01)


def call_roll(
    address: str, number: int, process: int, facts: Message, timeout: float
) -> list[Peer]:
    """Waits until all processes are there, and compares what they were given.

    Args:
      address: "HOST:PORT" of process 0.
      number: how many processes there are.
      process: which of them this is.
      facts: what all must have been given alike, as `agreement.differences` takes it.
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
        for peer in [peer for peer in self._peers.values() if _is_closed(peer.socket)]:
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
        if new.who.process == 0 or (former is not None and not _is_closed(former.socket)):
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
        hello = _read_message(sock, _HELLO_S)
    kinds = {"process": int, "number": int, "host": str, "facts": dict}
    if hello is None or any(type(hello.get(name)) is not kind for name, kind in kinds.items()):
        sock.close()
        return None
    _prepare(sock)
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
            reply = _read_message(sock, end - time.monotonic())
        if reply is not None and "refused" in reply:
            raise UserError(str(reply["refused"]))
        if sock is not None and reply is not None and "go" in reply:
            _prepare(sock)
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


def _read_message(sock: socket.socket, timeout: float) -> Message | None:
    """The first line of a new connection, as JSON; None if it is something else.

    Raises:
      OSError: nothing comes in time, or the connection breaks.
    """
    end, text = time.monotonic() + timeout, b""
    while not text.endswith(b"\n"):
        sock.settimeout(max(end - time.monotonic(), 0.001))
        if not (more := sock.recv(1 << 16)):
            raise ConnectionError("closed")
        text += more
        if len(text) > _LONGEST:
            return None
    return _parsed(text)


def _parsed(line: bytes) -> Message | None:
    try:
        message = parse(line.decode())
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _prepare(sock: socket.socket) -> None:
    """Makes a connection one that never blocks, and that the system probes."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": PROBE_S // 5 - 1}
    wanted["TCP_USER_TIMEOUT"] = PROBE_S * 1000
    for name, value in wanted.items():
        if hasattr(socket, name):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Watch:
    """A thread that hears of the end of other processes, and tells them of this one's."""

    def __init__(self, peers: Iterable[Peer], on_end: Callable[[Message], None]) -> None:
        """Nothing is watched yet.

        Args:
          peers: as of `call_roll`.
          on_end: called in the thread, once, with what another process has told, or with "process",
            "host" and "lost" (why it counts as lost).
        """
        self._peers, self._on_end = list(peers), on_end
        self._selector = selectors.DefaultSelector()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        for peer in self._peers:
            peer.heard = time.monotonic()
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)
        self._thread.start()

    def tell(self, end: Message, *, but: Peer | None = None) -> None:
        """Tells the others why this process ends; process 0 tells everyone."""
        for peer in self._peers:
            if peer is not but:
                peer.send({"end": end})

    def leave(self) -> None:
        """Says goodbye, once all have come to the end of the run, and stops watching."""
        for peer in self._peers:
            peer.send({"bye": True})
        self._stopped.set()
        self._thread.join()
        for peer in self._peers:
            peer.socket.close()

    def _run(self) -> None:
        beaten = turned = time.monotonic()
        while not self._stopped.is_set():
            for key, _ in self._selector.select(BEAT_S / 4):
                if self._hear(key.data):
                    return
            now = time.monotonic()
            if now - turned > 3 * BEAT_S:  # this process was stopped or busy, and could not listen
                for peer in self._peers:
                    peer.heard = now
            turned = now
            if now - beaten >= BEAT_S:
                beaten = now
                for peer in self._peers:
                    peer.send(None)
            for peer in self._peers:
                if not peer.left and now - peer.heard > SILENCE_S:
                    self._lost(peer, SILENT)
                    return

    def _hear(self, peer: Peer) -> bool:
        """Reads what has come from a peer; whether it means the end."""
        try:
            data = peer.socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        except OSError:
            return not peer.left and self._lost(peer, UNREACHABLE)
        peer.heard = time.monotonic()
        *lines, peer.unread = (peer.unread + data).split(b"\n")
        for message in filter(None, map(_parsed, filter(None, lines))):
            peer.left = peer.left or "bye" in message
            if "end" in message:
                self.tell(message["end"], but=peer)
                self._on_end(message["end"])
                return True
        if data:
            return False
        self._selector.unregister(peer.socket)
        return not peer.left and self._lost(peer, GONE)

    def _lost(self, peer: Peer, why: str) -> bool:
        end = {"process": peer.who.process, "host": peer.who.host, "lost": why}
        self.tell(end, but=peer)
        self._on_end(end)
        return True
