"""Run checks of untrusted texts in processes with limits on time and memory.

Checks run in processes instead of threads: one that hangs is killed with its process, memory can be
limited, and the signal handlers of the run are not touched. (math-verify sets an alarm signal,
which only a main thread may do.)
"""

import atexit
import concurrent.futures
import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlp.runtime import limited_process
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

MAX_WORKERS = 16  # maximum default number of processes
TRIES = 5  # attempts to run checks after their process pool broke
PATIENCE = 120  # seconds that a check may take beyond its limit, for processes to start
_Key = tuple[int, Callable[[str], None], str, float]  # workers, `prepare`, `name`, `memory_limit`
_POOLS: dict[_Key, ProcessPool] = {}


class StepTime:
    """The time that is left for the checks of a step.

    Attributes:
      unfinished: number of checks that were not finished in time, or not started.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        """Start with `seconds` left."""
        self._left = seconds
        self._end = math.inf
        self.unfinished = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent in this context."""
        self._end = time.monotonic() + self._left
        try:
            yield
        finally:
            self._left = self._end - time.monotonic()

    def is_over(self) -> bool:
        """Return whether no time is left."""
        return time.monotonic() >= self._end


@dataclasses.dataclass(frozen=True)
class LimitedChecks:
    """Runs the functions of one verifier or task in processes with limits.

    Attributes:
      name: of the verifier or task; objects with the same name and limits share their processes.
      prepare: called with `name` in each process before its first check, to import libraries.
      field: the config field or argument that contains `name`, for messages.
      built_in: an error in a check is not the user's, so it is logged and costs this check alone.
      time_limit: seconds for one check.
      workers: number of processes; 0 for one per core, at most `MAX_WORKERS`.
      memory_limit: GiB that a check may take beyond the memory of an idle process; 0 = no limit.
    """

    name: str
    prepare: Callable[[str], None]
    field: str
    built_in: bool
    time_limit: float
    workers: int = 0
    memory_limit: float = 0.0

    def run(self, function: Callable, arguments: Sequence[tuple], step_time: StepTime) -> list[Any]:
        """Return the result of a function for each argument tuple; None on failure.

        Args:
          function: a function of a module, so that it can be sent to a process.
          arguments: its arguments.
          step_time: checks that are not finished in this time fail.

        Raises:
          UserError: If a check that is not built in raises an error.
        """
        workers = self.workers or min(os.cpu_count() or 1, MAX_WORKERS)
        key = (workers, self.prepare, self.name, self.memory_limit)
        results: dict[int, Any] = {}
        for tries_left in reversed(range(TRIES)):
            pool = _pool(key)
            try:
                self._run_missing(pool, function, arguments, results, step_time)
                break
            except BrokenProcessPool as error:
                _stop(pool)  # its other processes are still running
                _POOLS.pop(key, None)
                if not tries_left:
                    raise self._error(error) from error
        step_time.unfinished += len(arguments) - len(results)
        return [results.get(number) for number in range(len(arguments))]

    def _run_missing(
        self,
        pool: ProcessPool,
        function: Callable,
        arguments: Sequence[tuple],
        results: dict[int, Any],
        step_time: StepTime,
    ) -> None:
        """Add the missing results to `results`, while there is time left.

        Raises:
          BrokenProcessPool: If a process ended while it had no check, or before the pool knew that
            it had one; the pool then drops all checks. `results` has the results so far.
        """
        limit = self.time_limit
        orphaned = 2 * limit + PATIENCE  # seconds after which a check ends itself without its run
        schedule = functools.partial(pool.schedule, limited_process.call, timeout=limit)
        jobs: dict[int, concurrent.futures.Future] = {}
        try:
            for number, args in enumerate(arguments):
                if number not in results:
                    try:
                        jobs[number] = schedule(args=(orphaned, function, *args))
                    except RuntimeError as error:  # the pool is broken
                        raise BrokenProcessPool(str(error)) from error
            for number, job in jobs.items():
                self._wait(pool, job, step_time)
                if job.done():
                    results[number] = self._result(job)
        finally:
            for job in jobs.values():
                job.cancel()  # jobs that are unfinished after an error or at the end of the time

    def _wait(self, pool: ProcessPool, job: concurrent.futures.Future, step_time: StepTime) -> None:
        """Wait until a check has ended or no time is left.

        Raises:
          BrokenProcessPool: If the check will never end. A broken pool loses the checks that it had
            not passed to a process yet, and a process that is killed while it holds the lock of the
            pool blocks the other processes.
        """
        patience = self.time_limit + PATIENCE
        while not job.done() and not step_time.is_over():
            concurrent.futures.wait([job], timeout=1)
            patience -= 1
            if not job.done() and not (pool.active and patience > 0):
                raise BrokenProcessPool("the processes ended or do not respond")

    def _result(self, job: concurrent.futures.Future) -> Any:
        try:
            return job.result()
        except (concurrent.futures.TimeoutError, ProcessExpired):
            return None
        except BrokenProcessPool:
            raise
        except Exception as error:  # a check can raise any error
            if self.built_in:
                LOGGER.warning("a check failed: %s: %s", type(error).__name__, str(error)[:200])
                return None
            if isinstance(error, UserError):  # it already names the line of the user's code
                raise
            raise self._error(error) from error

    def _error(self, error: Exception) -> UserError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return UserError.of(self.field, self.name, f"raised {reason}")


def _pool(key: _Key) -> ProcessPool:
    """Return the process pool for a key; it is created once and kept until the exit."""
    if (existing := _POOLS.get(key)) is not None:
        return existing
    workers, prepare, name, memory_limit = key
    if memory_limit and not limited_process.memory_is_limited():
        LOGGER.warning(
            "memory_limit=%g GiB: this system cannot limit the memory of a process, "
            "so a check may use all of it; run on Linux to enforce the limit",
            memory_limit,
        )
    pool = _POOLS[key] = ProcessPool(
        max_workers=workers,
        context=limited_process.Context(),
        initializer=_initialize,
        initargs=(prepare, name, int(memory_limit * limited_process.GIB)),
    )
    atexit.register(_stop, pool)
    return pool


def _initialize(prepare: Callable[[str], None], name: str, memory: int) -> None:
    """Initialize a process before its first check."""
    limited_process.ignore_signals()
    prepare(name)
    limited_process.limit_memory(memory)


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
