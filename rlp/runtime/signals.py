"""Signals end a program at once, with one line, unless there is state to save.

    nothing to save    SIGINT, SIGTERM, SIGHUP, SIGUSR1 → one line; the process dies of the signal
    state to save      `rlp.runtime.preemption` takes over: the step is finished and saved first

Python runs a signal's handler in the main thread, between two instructions, so a long call into
compiled code (a compilation, a tokenizer, a plot) would delay it for as long as the call takes. A
thread that is woken by the signal itself ends the program instead. No handler raises an exception,
which a callback inside of a library could swallow.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

# What ends a program: Ctrl-C, a scheduler, a terminal that closes, SLURM's warning (--signal=USR1).
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_before_end: list[Callable[[], object]] = []
_listeners: list[Callable[[int], bool]] = []
_installed = False
_dies_of: signal.Signals | None = None  # at the end of the program


def install() -> None:
    """From now on each of `ENDING` ends the program, unless somebody else handles it at the time.

    A signal that is ignored already, as SIGHUP is under nohup, stays ignored. Called once, from the
    main thread, by the programs of `launch`.
    """
    global _installed
    _installed = True
    atexit.register(_last_act)  # the first one registered runs last
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in handled():
        signal.signal(number, _handler)
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="signals").start()


def installed() -> bool:
    """Whether this process is a program that ends by itself."""
    return _installed


def handled() -> list[signal.Signals]:
    """The signals of `ENDING` that are not ignored in this process."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def before_end(callback: Callable[[], object]) -> Callable[[], None]:
    """Has `callback` called, from any thread, before a signal ends the program.

    A second signal does not wait for it.

    Returns:
      What takes the callback off the list again.
    """
    _before_end.append(callback)
    return lambda: _before_end.remove(callback)


def clean_up() -> None:
    """Calls what `before_end` was given: for a program that ends at once, from any thread."""
    for callback in reversed(_before_end):
        try:
            callback()
        except Exception as error:  # noqa: BLE001  the program must end all the same
            tell(f"warning: {type(error).__name__}: {error}")


def listen(callback: Callable[[int], bool]) -> Callable[[], None]:
    """Has `callback` called with the number of each signal of `ENDING`, in a thread, at once; the
    program ends if it returns True.

    Returns:
      What takes the callback off the list again.
    """
    _listeners.append(callback)
    return lambda: _listeners.remove(callback)


def die_of(number: int) -> NoReturn:
    """Ends the process by a signal, so that a shell sees what has ended it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed, or being written to
            stream.flush()
    # signal.signal may only be called by the main thread.
    ctypes.CDLL(None).signal(int(number), 0)  # SIG_DFL
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # it is blocked in this process


def tell(line: str) -> None:
    """Writes a line to stderr, also where a handler has interrupted somebody who was writing."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed
        os.write(sys.stderr.fileno(), f"\n{line}\n".encode())


def die_at_exit(number: int) -> None:
    """Has the program end by a signal instead of with a status, once everything is cleaned up."""
    global _dies_of
    _dies_of = signal.Signals(number)


def _last_act() -> None:
    if _dies_of is not None:
        die_of(_dies_of)


def _handler(number: int, frame: FrameType | None) -> None:
    """Does nothing: `_watch` hears of the signal, too."""


def _watch(reader: int) -> NoReturn:
    """Ends the program on a signal that nobody else handles at the time."""
    ending = False
    while True:
        for number in os.read(reader, 64):
            if number not in ENDING:
                continue
            if ending:
                die_of(number)
            asked = [callback(number) for callback in list(_listeners)]
            if any(asked) or signal.getsignal(number) is _handler:
                ending = True
                threading.Thread(target=_end, args=(number,), daemon=True).start()


def _end(number: int) -> NoReturn:
    """Ends the program as the signal would, after one line."""
    clean_up()
    tell(f"stopped by {signal.Signals(number).name}")
    die_of(number)
