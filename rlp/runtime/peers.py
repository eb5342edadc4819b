"""Connections between the processes of a run, and the messages on them: a JSON object a line.

The operating system closes the connections of a process that is killed, so the others know within
milliseconds; it probes those of a host that is down, without any help from Python.
"""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from rlp.runtime.consistency import Who
from rlp.runtime.strict_json import parse

PROBE_S = 20  # after which the system gives up a host that does not acknowledge anything
_SEND_S = 2.0
_LONGEST = 1 << 24  # bytes of a message

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


def read_message(sock: socket.socket, timeout: float) -> Message | None:
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
    return parsed(text)


def parsed(line: bytes) -> Message | None:
    """A line as a message; None if it is something else."""
    try:
        message = parse(line.decode())
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def prepare(sock: socket.socket) -> None:
    """Makes a connection one that never blocks, and that the system probes."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": PROBE_S // 5 - 1}
    wanted["TCP_USER_TIMEOUT"] = PROBE_S * 1000
    for name, value in wanted.items():
        if hasattr(socket, name):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end has closed a connection, or the system has given it up."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
