"""Child processes with limits, for work that may never end or may use up all memory.

Ctrl-C, a closed terminal and a scheduler's warning reach the whole process group, but only the main
process acts on them: it saves its state and ends the child processes.
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
GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)  # handled by the main process only
OUT_OF_MEMORY = 12  # exit status of a process that exceeded its memory limit


def ignore_signals() -> None:
    """Ignore the signals on which only the main process acts."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Start processes inside this context, so that they never react to `GROUP_SIGNALS`.

    They inherit the blocking mask, and `ignore_signals` discards the signals that arrived by then.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Process(context.SpawnProcess):
    """A spawned process that starts with `GROUP_SIGNALS` blocked."""

    def start(self) -> None:
        with signals_blocked():
            resource_tracker.ensure_running()  # as a side effect this unblocks SIGINT
        with signals_blocked():
            super().start()


class Context(context.SpawnContext):
    """A context that creates such processes; a fork would lose the threads of JAX."""

    Process = Process


def memory_is_limited() -> bool:
    """Whether this system enforces `limit_memory`. macOS, for example, ignores such limits."""
    return sys.platform == "linux"


def limit_memory(more: int) -> None:
    """Limit the address space of this process to `more` bytes beyond what it uses; 0 for no limit.

    The limit is relative because the address space of the imports depends on the machine (threads
    of libraries reserve address space).
    """
    if not more or not memory_is_limited():
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + more
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def call(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this child process, which ends if the call takes too much time or memory.

    After `seconds` SIGALRM ends the process. The main process kills it earlier; the alarm is needed
    if the main process was itself killed. The process also ends when it runs out of memory, because
    memory that the call left behind (caches of a library) would be missing in later calls.

    Returns:
      The result of the function.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*arguments)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
