"""Connections between the processes of a run. Each line on a connection is a JSON object.

The operating system closes the connections of a process that is killed, so the others know within
milliseconds. It also probes the connections to detect a host that is down; neither needs Python.
"""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from rlp.runtime.consistency import Member
from rlp.runtime.strict_json import parse

PROBE_S = 20  # seconds after which the system gives up on a host that acknowledges nothing
_SEND_S = 2.0  # seconds to wait for a peer that does not read
_LONGEST = 1 << 24  # bytes of a message

Message = Mapping[str, Any]


@dataclasses.dataclass
class Peer:
    """A process at the other end of a connection.

    Attributes:
      member: Number and host of the process.
      socket: The connection to it.
      heard: Time of its last message, by `time.monotonic`.
      left: Whether it has said goodbye, so that its end is expected.
      unread: The beginning of an incomplete message.
    """

    member: Member
    socket: socket.socket
    heard: float = 0.0
    left: bool = False
    unread: bytes = b""

    def send(self, message: Message | None) -> None:
        """Send a message, or a heartbeat if `message` is None.

        Errors are ignored: `rlp.runtime.heartbeat` detects a peer that does not read.
        """
        text = b"\n" if message is None else json.dumps(message).encode() + b"\n"
        end = time.monotonic() + _SEND_S
        with contextlib.suppress(OSError):
            while text and time.monotonic() < end:
                try:
                    text = text[self.socket.send(text) :]
                except BlockingIOError:
                    if message is None:
                        return  # enough heartbeats are waiting to be read
                    time.sleep(0.01)


def read_message(sock: socket.socket, timeout: float) -> Message | None:
    """Read the first line of a new connection as a message; None if it is not a message.

    Raises:
      OSError: If no line arrives within `timeout` seconds, or the connection breaks.
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
    """Parse a line as a message; None if it is not a JSON object."""
    try:
        message = parse(line.decode())
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def prepare(sock: socket.socket) -> None:
    """Make a connection non-blocking, and have the operating system probe it."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": PROBE_S // 5 - 1}
    options["TCP_USER_TIMEOUT"] = PROBE_S * 1000
    for name, value in options.items():
        if hasattr(socket, name):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end has closed a connection, or the system has given up on it."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
