"""Make signals end a program at once, with one line, unless there is state to save.

    nothing to save    SIGINT, SIGTERM, SIGHUP, SIGUSR1 → one line; the process dies of the signal
    state to save      `rlp.runtime.preemption` takes over: the step is finished and saved first

Python runs signal handlers in the main thread, between two bytecode instructions, so a long call
into compiled code (a compilation, a tokenizer, a plot) would delay them until the call returns.
Instead, the signal wakes a thread that ends the program. No handler raises an exception, because a
callback inside a library could swallow it.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

# Ctrl-C, a scheduler, a closed terminal, and SLURM's warning (--signal=USR1).
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_before_end: list[Callable[[], object]] = []
_listeners: list[Callable[[int], bool]] = []
_installed = False
_dies_of: signal.Signals | None = None  # the signal by which the program ends at exit


def install() -> None:
    """Make each signal of `ENDING` end the program, unless another handler is set when it arrives.

    A signal that is already ignored, such as SIGHUP under nohup, stays ignored. The programs of
    `launch` call this once, from the main thread.
    """
    global _installed
    _installed = True
    atexit.register(_die_if_asked)  # the first function registered runs last
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in handled():
        signal.signal(number, _handler)
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="signals").start()


def installed() -> bool:
    """Whether `install` was called, that is, whether signals end this process."""
    return _installed


def handled() -> list[signal.Signals]:
    """Return the signals of `ENDING` that are not ignored in this process."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def before_end(callback: Callable[[], object]) -> Callable[[], None]:
    """Register a callback that is called, from any thread, before a signal ends the program.

    A second signal does not wait for it.

    Returns:
      A function that removes the callback.
    """
    _before_end.append(callback)
    return lambda: _before_end.remove(callback)


def clean_up() -> None:
    """Call the callbacks of `before_end`. For programs that end at once, from any thread."""
    for callback in reversed(_before_end):
        try:
            callback()
        except Exception as error:  # noqa: BLE001  the program must end in any case
            print_line(f"warning: cleaning up failed: {type(error).__name__}: {error}")


def listen(callback: Callable[[int], bool]) -> Callable[[], None]:
    """Register a callback that a thread calls with the number of each signal of `ENDING` at once.

    The program ends if the callback returns True.

    Returns:
      A function that removes the callback.
    """
    _listeners.append(callback)
    return lambda: _listeners.remove(callback)


@contextlib.contextmanager
def first_calls(callback: Callable[[int], object]) -> Iterator[None]:
    """Let the first signal of `ENDING` call a function from a thread instead of ending the program;
    the second one ends it. To be entered in the main thread, after `install`."""
    heard = 0

    def hear(number: int) -> bool:
        nonlocal heard
        heard += 1
        if heard == 1:
            callback(number)
        return heard > 1

    stop_listening = listen(hear)
    before = {number: signal.signal(number, _wait) for number in handled()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_listening()


def die_of(number: int) -> NoReturn:
    """End the process by a signal, so that a shell sees which signal ended it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed, or being written to
            stream.flush()
    # Python's signal.signal works only in the main thread.
    ctypes.CDLL(None).signal(int(number), 0)  # SIG_DFL
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # reached only if the signal is blocked in this process


def print_line(line: str) -> None:
    """Write a line to stderr, even if a handler has interrupted another write to it."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed
        os.write(sys.stderr.fileno(), f"\n{line}\n".encode())


def die_at_exit(number: int) -> None:
    """Make the program end by a signal instead of with a status, after all exit handlers."""
    global _dies_of
    _dies_of = signal.Signals(number)


def _die_if_asked() -> None:
    if _dies_of is not None:
        die_of(_dies_of)


def _handler(number: int, frame: FrameType | None) -> None:
    """Do nothing: `_watch` receives the signal, too."""


def _wait(number: int, frame: FrameType | None) -> None:
    """Do nothing, unlike `_handler`: the program goes on."""


def _watch(reader: int) -> NoReturn:
    """End the program on a signal for which no other handler is set."""
    ending = False
    while True:
        for number in os.read(reader, 64):
            if number not in ENDING:
                continue
            if ending:
                die_of(number)
            requests = [callback(number) for callback in list(_listeners)]
            if any(requests) or signal.getsignal(number) is _handler:
                ending = True
                threading.Thread(target=_end, args=(number,), daemon=True).start()


def _end(number: int) -> NoReturn:
    """End the program as the signal would, after printing one line."""
    clean_up()
    print_line(f"stopped by {signal.Signals(number).name}")
    die_of(number)
