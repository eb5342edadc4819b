"""Processes for work that may never end or take all memory: how they start, and what they may use.

A process of this kind belongs to the run: Ctrl-C, a closed terminal and a scheduler's warning reach
the whole process group, but the run alone acts on them. It saves its state and ends the others.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import context, resource_tracker
from typing import Any

GIB = 2**30
GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)  # the run acts on these
OUT_OF_MEMORY = 12  # exit status of a process whose work needed more than it may take


def ignore_signals() -> None:
    """Leaves to the run what a signal to its process group asks for."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """A process that starts in here is deaf to these signals from its first instruction on: the
    mask is inherited, and `ignore_signals` discards what arrived by then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Process(context.SpawnProcess):
    """A spawned process that starts with `GROUP_SIGNALS` blocked."""

    def start(self) -> None:
        with signals_blocked():
            resource_tracker.ensure_running()  # starting it unblocks SIGINT
        with signals_blocked():
            super().start()


class Context(context.SpawnContext):
    """Makes such processes. They are spawned, since a fork would lose the threads that JAX has."""

    Process = Process


def memory_is_limited() -> bool:
    """Whether this system enforces `limit_memory`; macOS, for one, ignores such limits."""
    return sys.platform == "linux"


def limit_memory(more: int) -> None:
    """Lets this process take so many bytes of address space beyond what it has; 0 = any number.

    What it has by now is its imports, whose size depends on the machine (threads of libraries
    reserve address space), so the limit is relative to it.
    """
    if not more or not memory_is_limited():
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def call(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, in a process that may be killed.

    After `seconds` the system ends this process. The run kills it before that; where the run itself
    was killed, nobody else would. A process whose work ran out of memory ends, too: what the work
    left in it (caches of a library) would be missing in the next check.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*arguments)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
