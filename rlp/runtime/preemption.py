"""Handle signals as requests to finish the step, save and stop.

In a multihost run any process may receive the signal. The processes exchange a flag at every check,
so that all stop at the same one. (JAX's own service for this counts steps, and so does Orbax, which
queries it on every save; in an experiment the step starts again at every arm.)
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
    """A signal has requested the run to stop, and its state is saved.

    Attributes:
      number: The signal that this process received; None if only another process received one.
    """

    def __init__(self, number: int | None = None) -> None:
        """Store the number of the signal."""
        super().__init__()
        self.number = number


_requests = frozenset(signals.ENDING)  # the signals that request a run to stop


@contextlib.contextmanager
def only_ctrl_c() -> Iterator[None]:
    """Let a run handle no signal but Ctrl-C, for processes that are not ours, such as notebooks."""
    global _requests
    before, _requests = _requests, frozenset({signal.SIGINT})
    try:
        yield
    finally:
        _requests = before


def _handled() -> list[signal.Signals]:
    """Return the signals that are requests now. Only Python's main thread can handle signals."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return [s for s in signals.handled() if s in _requests] if in_main_thread else []


class Preemption:
    """A context manager in which the signals of `signals.ENDING` are requests to stop.

    After `wait` is called, such a signal only sets a flag, for which `check` raises `Preempted`; a
    second SIGINT ends the process at once. Before `wait`, a signal ends the process, as outside of
    the context. In a multihost run `wait` is called on entry, because all processes must stop at
    the same check.
    """

    def __init__(self) -> None:
        """Create the context manager; no signal is pending."""
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
            os.kill(os.getpid(), self._number)  # the signal arrived after the last check

    def wait(self) -> None:
        """Hold signals back until the next check. Call it once there is state to save."""
        if not self._previous:
            self._stop_counting = signals.listen(self._count)
            self._previous = {number: signal.signal(number, self._request) for number in _handled()}

    def _count(self, number: int) -> bool:
        """Count SIGINTs. Returns whether this is the second one, which ends the program at once."""
        self._interrupts += number == signal.SIGINT
        return self._interrupts > 1

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._number is not None and not signals.installed():
                raise KeyboardInterrupt
            signals.print_line(
                "Ctrl-C: the run stops and saves after this step; press it again to stop at once "
                "without saving"
            )
        self._number = self._number or number

    def check(self) -> None:
        """Raise Preempted if any process received a signal. All processes make the same checks."""
        if hosts.any_of(self._number is not None):
            self._heard = True
            raise Preempted(self._number)

    def watch(self, items: Iterable) -> Iterator:
        """Yield the items, with a check before each."""
        for item in items:
            self.check()
            yield item
