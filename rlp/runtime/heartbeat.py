"""Detect that another process of a run has ended, and notify the others when this one ends.

A killed process closes its connection; a host that is down does not answer the probes of the
operating system (`rlp.runtime.peers`); a frozen process sends nothing. A long compilation or a held
GIL does not make a process look dead unless it lasts `SILENCE_S`.
"""

import selectors
import threading
import time
from collections.abc import Callable, Iterable

from rlp.runtime.peers import PROBE_S, Message, Peer, parsed

BEAT_S = 2.0  # seconds between two heartbeats
SILENCE_S = 60.0  # seconds without a message after which a connected process counts as lost

GONE = "is gone: it was killed, or it crashed"
UNREACHABLE = f"is gone: its host has not responded for {PROBE_S} s"
SILENT = f"is gone: it has sent no heartbeat for {SILENCE_S:.0f} s and may be frozen"


class Heartbeat:
    """A thread that detects the end of other processes and notifies them when this one ends."""

    def __init__(self, peers: Iterable[Peer], on_end: Callable[[Message], None]) -> None:
        """Create the thread; `start` starts it.

        Args:
          peers: The connections that `rendezvous.join` returned.
          on_end: Called once, in the thread, when another process ends: with the message that the
            process sent, or with "process", "host" and "lost" (why it counts as lost).
        """
        self._peers, self._on_end = list(peers), on_end
        self._selector = selectors.DefaultSelector()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start watching."""
        for peer in self._peers:
            peer.heard = time.monotonic()
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)
        self._thread.start()

    def notify(self, end: Message, *, skip: Peer | None = None) -> None:
        """Tell the peers why a process ends. Process 0, to which all connect, forwards it."""
        for peer in self._peers:
            if peer is not skip:
                peer.send({"end": end})

    def leave(self) -> None:
        """Say goodbye and stop watching. Call it once all processes have finished the run."""
        for peer in self._peers:
            peer.send({"bye": True})
        self._stopped.set()
        self._thread.join()
        for peer in self._peers:
            peer.socket.close()

    def _run(self) -> None:
        last_beat = last_turn = time.monotonic()
        while not self._stopped.is_set():
            for key, _ in self._selector.select(BEAT_S / 4):
                if self._receive(key.data):
                    return
            now = time.monotonic()
            if now - last_turn > 3 * BEAT_S:  # this process was suspended and could not listen
                for peer in self._peers:
                    peer.heard = now
            last_turn = now
            if now - last_beat >= BEAT_S:
                last_beat = now
                for peer in self._peers:
                    peer.send(None)
            for peer in self._peers:
                if not peer.left and now - peer.heard > SILENCE_S:
                    self._lost(peer, SILENT)
                    return

    def _receive(self, peer: Peer) -> bool:
        """Read from a peer. Returns whether a process has ended."""
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
        for message in filter(None, map(parsed, filter(None, lines))):
            peer.left = peer.left or "bye" in message
            if "end" in message:
                self.notify(message["end"], skip=peer)
                self._on_end(message["end"])
                return True
        if data:
            return False
        self._selector.unregister(peer.socket)
        return not peer.left and self._lost(peer, GONE)

    def _lost(self, peer: Peer, reason: str) -> bool:
        end = {"process": peer.member.process, "host": peer.member.host, "lost": reason}
        self.notify(end, skip=peer)
        self._on_end(end)
        return True
