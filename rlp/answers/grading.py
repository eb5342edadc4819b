"""Grade responses: verifiers check their answers in processes with limits on time and memory.

    responses → answers → correct or not, score, majority or not, confidence     `Grader.grade`

Verifiers run in processes instead of threads: one that hangs is killed with its process, memory can
be limited, and the signal handlers of the run are not touched. (math-verify sets an alarm signal,
which only a main thread may do.)
"""

import atexit
import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlp.answers import verifiers
from rlp.answers.verifiers import Gold, Tags
from rlp.runtime import limited_process
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

MAX_WORKERS = 16  # maximum default number of processes
TRIES = 5  # attempts to run checks after their process pool broke
PATIENCE = 120  # seconds that a check may take beyond its limit, for processes to start
_Key = tuple[int, str, float]  # number of workers, name of the verifier, memory limit
_POOLS: dict[_Key, ProcessPool] = {}


@dataclasses.dataclass(frozen=True)
class Grade:
    """The grade of a response.

    Attributes:
      answer: extracted answer; None if none can be extracted.
      correct: whether the answer equals the gold answer.
      agrees: whether it is the majority answer of its group.
      confidence: stated confidence in [0, 1]; None if none can be extracted.
      failed: the check exceeded its time or memory, killed its process, or a built-in verifier
        raised an error; the response then counts as one without an answer.
      score: the score of a verifier that returns numbers; None for other verifiers.
    """

    answer: str | None
    correct: bool
    agrees: bool
    confidence: float | None
    failed: bool
    score: float | None = None

    @property
    def reward(self) -> float:
        """The score if there is one; otherwise 1 for a correct answer and 0 for any other."""
        return float(self.correct) if self.score is None else self.score


class StepTime:
    """The time that is left for the checks of a step.

    Attributes:
      unfinished: number of checks that were not finished in time, or not started.
    """

    def __init__(self, seconds: float) -> None:
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
class Grader:
    """Grades responses with a verifier.

    Attributes:
      verifier: name of the verifier, see `verifiers.find`.
      time_limit: seconds for the check of one response.
      workers: number of processes; 0 for one per core, at most `MAX_WORKERS`.
      close: text that ends a thought; the answer is extracted from the text after the last one.
      open: text that begins a thought; a response whose last thought does not end has no answer.
      opened: responses begin inside a thought.
      memory_limit: GiB that a check may take beyond the memory of an idle process; 0 = no limit.
      step_time_limit: seconds for all checks of a step; 0 = no limit.
    """

    verifier: str
    time_limit: float
    workers: int
    close: str
    open: str = ""
    opened: bool = False
    memory_limit: float = 0.0
    step_time_limit: float = 0.0

    @contextmanager
    def step(self) -> Iterator[StepTime]:
        """Provide the time for all checks of a step; log how many checks it was too short for."""
        step_time = StepTime(self.step_time_limit or math.inf)
        yield step_time
        if step_time.unfinished:
            LOGGER.warning(
                "data.problems.step_time_limit=%g seconds exceeded: %d checks of this step were "
                "not finished and count as failed; raise it, or set a larger data.problems.workers",
                self.step_time_limit,
                step_time.unfinished,
            )

    def grade(self, responses: Sequence[str], answer: str) -> list[Grade]:
        """Grade the responses to one problem as a separate step; see `grade_all`."""
        with self.step() as step_time:
            return self.grade_all([responses], [answer], step_time)[0]

    def grade_all(
        self, groups: Sequence[Sequence[str]], answers: Sequence[str], step_time: StepTime
    ) -> list[list[Grade]]:
        """Grade all responses.

        Args:
          groups: the responses to each problem.
          answers: the gold answer to each problem; a `Gold` also has its number of options.
          step_time: from `step`; checks that are not finished in this time count as failed.

        Raises:
          UserError: If a user's verifier raises an error.
        """
        with step_time.running():
            pairs = zip(groups, answers, strict=True)
            work = [(text, answer, self._tags) for group, answer in pairs for text in group]
            results = iter(self._run(verifiers.graded, work, step_time))
            graded = [[next(results) for _ in group] for group in groups]
            extracted = [[result and result[0] for result in group] for group in graded]
            majorities = self._majority_answers(groups, extracted, answers, step_time)
        return [
            [
                Grade(
                    answer=result[0] if result else None,
                    correct=result is not None and result[1],
                    agrees=result is not None and result[0] in majority,
                    confidence=result[2] if result else None,
                    failed=result is None,
                    score=result[3] if result else None,
                )
                for result in group
            ]
            for group, majority in zip(graded, majorities, strict=True)
        ]

    def why_unusable(self, golds: Sequence[Gold]) -> list[str | None]:
        """Return `verifiers.why_unusable` for each gold answer: "" for a usable one, or the reason;
        None if the check took too long or killed its process."""
        return self._run(verifiers.why_unusable, [(gold,) for gold in golds], StepTime(math.inf))

    @property
    def _tags(self) -> Tags:
        return Tags(self.open, self.close, self.opened)

    def _majority_answers(
        self,
        groups: Sequence[Sequence[str]],
        extracted: Sequence[Sequence[str | None]],
        golds: Sequence[str],
        step_time: StepTime,
    ) -> list[set[str]]:
        """Return the majority answer of each group, as the set of texts that equal it.

        The first of several such answers wins. The set is empty for a group without an answer.
        """
        counts = [Counter(answer for answer in group if answer is not None) for group in extracted]
        pairs = [_deciding_pairs(count) for count in counts]
        work = []
        for texts, answers, group_pairs, gold in zip(groups, extracted, pairs, golds, strict=True):
            # The first response that gives each answer.
            response = dict(zip(reversed(answers), reversed(texts), strict=True))
            options = getattr(gold, "options", 0)
            work += [(response[a], response[b], options, self._tags) for a, b in group_pairs]
        verdicts = iter(self._run(verifiers.agreed, work, step_time))
        majorities = []
        for count, group_pairs in zip(counts, pairs, strict=True):
            equal = {answer: {answer} for answer in count}
            for a, b in group_pairs:
                if next(verdicts):
                    equal[a].add(b)
                    equal[b].add(a)
            votes = lambda answer, count=count, equal=equal: sum(count[x] for x in equal[answer])
            majorities.append(equal[max(count, key=votes)] if count else set())
        return majorities

    def _run(
        self, function: Callable, arguments: Sequence[tuple], step_time: StepTime
    ) -> list[Any]:
        """Return a result of a function of `verifiers` for each argument tuple; None on failure."""
        workers = self.workers or min(os.cpu_count() or 1, MAX_WORKERS)
        key = (workers, self.verifier, self.memory_limit)
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
                    raise self._verifier_error(error) from error
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
                        jobs[number] = schedule(args=(orphaned, function, self.verifier, *args))
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
        except Exception as error:  # a verifier can raise any error
            if self.verifier in verifiers.VERIFIERS:  # built-in: not the user's error, so continue
                LOGGER.warning("a check failed: %s: %s", type(error).__name__, str(error)[:200])
                return None
            if isinstance(error, UserError):  # it already names the line of the verifier
                raise
            raise self._verifier_error(error) from error

    def _verifier_error(self, error: Exception) -> UserError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return UserError.of("data.problems.verifier", self.verifier, f"raised {reason}")


def _deciding_pairs(count: Counter[str]) -> list[tuple[str, str]]:
    """Return the pairs of different texts whose comparison determines the majority answer."""
    first = count.most_common(1)
    if first and 2 * first[0][1] > count.total():  # already a majority: only find its equals
        return [(other, first[0][0]) for other in count if other != first[0][0]]
    return list(itertools.combinations(count, 2))


def _pool(key: _Key) -> ProcessPool:
    """Return the process pool for a verifier; it is created once and kept until the exit."""
    if (existing := _POOLS.get(key)) is not None:
        return existing
    workers, verifier, memory_limit = key
    if memory_limit and not limited_process.memory_is_limited():
        LOGGER.warning(
            "data.problems.memory_limit=%g GiB: this system cannot limit the memory of a process, "
            "so a check may use all of it; run on Linux to enforce the limit",
            memory_limit,
        )
    pool = _POOLS[key] = ProcessPool(
        max_workers=workers,
        context=limited_process.Context(),
        initializer=_initialize,
        initargs=(verifier, int(memory_limit * limited_process.GIB)),
    )
    atexit.register(_stop, pool)
    return pool


def _initialize(verifier: str, memory: int) -> None:
    """Initialize a process before its first check."""
    limited_process.ignore_signals()
    verifiers.prepare(verifier)
    limited_process.limit_memory(memory)


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
