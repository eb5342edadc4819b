"""Notices when another process of a run has ended, and tells the others of the end of this one.

A killed process is noticed by its closed connection, a host that is down by the system's probes
(`rlp.runtime.peers`), a frozen process by its silence. Neither a long compilation nor a held GIL
makes a process look dead, short of `SILENCE_S`.
"""

import selectors
import threading
import time
from collections.abc import Callable, Iterable

from rlp.runtime.peers import PROBE_S, Message, Peer, parsed

BEAT_S = 2.0  # between two signs of life
SILENCE_S = 60.0  # after which a process that is connected but says nothing counts as gone

GONE = "is gone: it was killed, or it crashed"
UNREACHABLE = f"is gone: its host has not answered for {PROBE_S} s"
SILENT = f"is gone: it has said nothing for {SILENCE_S:.0f} s, as if it were frozen"


class Heartbeat:
    """A thread that hears of the end of other processes, and tells them of this one's."""

    def __init__(self, peers: Iterable[Peer], on_end: Callable[[Message], None]) -> None:
        """Nothing is watched yet.

        Args:
          peers: as of `rendezvous.call_roll`.
          on_end: called in the thread, once, with what another process has told, or with "process",
            "host" and "lost" (why it counts as lost).
        """
        self._peers, self._on_end = list(peers), on_end
        self._selector = selectors.DefaultSelector()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

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
        for message in filter(None, map(parsed, filter(None, lines))):
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
