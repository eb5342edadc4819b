"""SIGTERM as a request: finish the step, save, leave.

Of several processes any may get the signal. At every check they ask one another, so that all stop
at the same one. (JAX's own service for this counts steps, and so does Orbax, which asks it on every
save; a run of several arms has no steps that only rise.)
"""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType

from rlp import hosts


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

    @property
    def requested(self) -> bool:
        """Whether SIGTERM came to this process; the others are not asked."""
        return self._requested

    def check(self) -> None:
        """Raises Preempted if SIGTERM came, to whichever process; all make the same checks."""
        if hosts.any_of(self._requested):
            raise Preempted

    def watch(self, items: Iterable) -> Iterator:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item
