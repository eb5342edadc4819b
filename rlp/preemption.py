"""SIGTERM as a request: finish the step, save, leave.

Of several processes any may get the signal. JAX's preemption service hears it, and names to all of
them the same one of the coming checks.
"""

import itertools
import signal
from collections.abc import Iterable, Iterator
from types import FrameType

from jax.experimental import multihost_utils

from rlp import hosts

_checks = itertools.count()  # of this process; all processes make the same ones


class Preempted(Exception):  # noqa: N818 - a request, not an error
    """The run was asked to stop. The launch program ends with status 0."""


class Preemption:
    """While entered, SIGTERM only sets a flag that `check` turns into `Preempted`.

    With several processes, JAX's handler of the signal stays: it does so from the joining on.
    """

    def __enter__(self) -> "Preemption":
        self._requested = False
        self._several = hosts.count() > 1
        if self._several:
            return self
        self._previous = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._several:
            return
        signal.signal(signal.SIGTERM, self._previous)
        if self._requested and callable(self._previous):
            self._previous(signal.SIGTERM, None)  # of a Preemption around this one

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def check(self) -> None:
        """Raises Preempted if SIGTERM came; of several processes, on all at the same check."""
        if self._several and multihost_utils.reached_preemption_sync_point(next(_checks)):
            self._requested = True
        if self._requested:
            raise Preempted

    def watch(self, items: Iterable) -> Iterator:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item
