"""What the engine's thread reports about a job, for the event loop."""

import asyncio
import contextlib

from rlp.serving.engine import Event, Failed, Finished, Piece
from rlp.serving.fields import ApiError


class Updates:
    """Keeps the newest event of every text until it is taken.

    An event has all of its text, so a client that reads slowly misses nothing, and what is kept for
    it does not grow with the number of events.
    """

    def __init__(self) -> None:
        """Create it in the event loop that takes the events."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._newest: dict[int, Piece | Finished] = {}
        self._failed: Failed | None = None

    def notify(self, event: Event) -> None:
        """Report an event; may be called by any thread, also after the loop has ended."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._put, event)

    async def take(self) -> list[Piece | Finished]:
        """Wait for events, and return the newest one of each text that has any.

        Raises:
          ApiError: If the job has failed and nothing else is left.
        """
        while not self._newest:
            if self._failed is not None:
                raise ApiError(self._failed.reason, status=503)
            self._changed.clear()
            await self._changed.wait()
        newest, self._newest = self._newest, {}
        return list(newest.values())

    def _put(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._failed = event
        else:
            self._newest[event.index] = event
        self._changed.set()
