"""SIGTERM as a request: finish the step, save, leave."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType


class Preempted(Exception):  # noqa: N818 - a request, not an error
    """The run was asked to stop. The launch program ends with status 0."""


class Preemption:
    """While entered, SIGTERM only sets a flag that `check` turns into `Preempted`."""

    def __enter__(self) -> "Preemption":
        self._requested = False
        self._previous = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)
        if self._requested and callable(self._previous):
            self._previous(signal.SIGTERM, None)  # of a Preemption around this one

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def check(self) -> None:
        """Raises Preempted if SIGTERM came."""
        if self._requested:
            raise Preempted

    def watch(self, items: Iterable) -> Iterator:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item
