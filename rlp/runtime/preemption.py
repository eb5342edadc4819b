"""Signals as a request: finish the step, save, leave.

Of several processes any may get the signal. At every check they ask one another, so that all stop
at the same one. (JAX's own service for this counts steps, and so does Orbax, which asks it on every
save; a run of several arms has no steps that only rise.)
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from rlp.runtime import hosts, signals


class Preempted(Exception):  # noqa: N818 - a request, not an error
    """A signal asked the run to stop, and its state is saved.

    Attributes:
      number: the signal that this process got; None if only another one got it.
    """

    def __init__(self, number: int | None = None) -> None:
        """The run stops because of the signal `number`."""
        super().__init__()
        self.number = number


_requests = frozenset(signals.ENDING)  # the signals that ask a run to stop


@contextlib.contextmanager
def ctrl_c_alone() -> Iterator[None]:
    """In here, Ctrl-C is the only signal that a run takes over: for a process that is not one of
    our programs, such as a notebook's."""
    global _requests
    before, _requests = _requests, frozenset({signal.SIGINT})
    try:
        yield
    finally:
        _requests = before


def _taken_over() -> list[signal.Signals]:
    """The signals that are requests now. Python lets no thread but the main one handle any."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return [s for s in signals.handled() if s in _requests] if in_main_thread else []


class Preemption:
    """A context manager in which a signal of `signals.ENDING` is a request.

    From `wait` on, such a signal only sets a flag that `check` turns into `Preempted`, and a second
    SIGINT ends the process at once. Before, a signal ends it, as outside of the context; but of
    several processes, which have to stop at the same check, a signal waits from the beginning.
    """

    def __init__(self) -> None:
        """No signal waits yet."""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        self._number: int | None = None
        self._heard = False
        self._interrupts = 0
        if hosts.count() > 1:
            self.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._stop_counting()
        previous, self._previous = self._previous, {}
        if self._number is None or self._heard or kind is not None:
            return
        if callable(previous[signal.Signals(self._number)]):
            os.kill(os.getpid(), self._number)  # it came too late for a check

    def wait(self) -> None:
        """From now on signals wait for the next check: there is something to save."""
        if not self._previous:
            self._stop_counting = signals.listen(self._count)
            self._previous = {
                number: signal.signal(number, self._request) for number in _taken_over()
            }

    def _count(self, number: int) -> bool:
        """Whether this is the second SIGINT, which ends a program whatever it is doing."""
        self._interrupts += number == signal.SIGINT
        return self._interrupts > 1

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._number is not None and not signals.installed():
                raise KeyboardInterrupt
            signals.tell("Ctrl-C: the run saves after this step; press it again to stop at once")
        self._number = self._number or number

    def check(self) -> None:
        """Raises Preempted if a signal came, to whichever process; all make the same checks."""
        if hosts.any_of(self._number is not None):
            self._heard = True
            raise Preempted(self._number)

    def watch(self, items: Iterable) -> Iterator:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item
