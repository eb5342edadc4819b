"""What responses are worth: their answers, checked in processes with limits of time and memory.

    responses → answers → right or wrong, score, agreed or not, how sure     `Grader.grade`

Processes, not threads: a verifier that hangs is killed with its process, memory can be limited, and
no signal handler of the run is touched. (math-verify sets an alarm signal, which only a main thread
may.)
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

MOST_WORKERS = 16  # where the number is not given
TRIES = 5  # of checks whose processes broke down together
PATIENCE = 120  # seconds that a check may take beyond its limit: processes have to start
_Key = tuple[int, str, float]  # number of workers, name of the verifier, limit of memory
_POOLS: dict[_Key, ProcessPool] = {}


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a response is worth.

    Attributes:
      answer: that it gives; None where none can be read.
      correct: that is the right one.
      agrees: it is the answer that most responses of its group give.
      confidence: that it states, in [0, 1]; None where none can be read.
      failed: its check took too long or too much memory, killed its process, or raised an error
        (of a verifier of ours); then it counts as without an answer.
      score: what a verifier that returns a number gives it; None where it is correct or not.
    """

    answer: str | None
    correct: bool
    agrees: bool
    confidence: float | None
    failed: bool
    score: float | None = None

    @property
    def reward(self) -> float:
        """The score; without one, 1 for a correct answer and 0 for any other."""
        return float(self.correct) if self.score is None else self.score


class StepTime:
    """What is left of the time for all checks of a step.

    Attributes:
      left_out: number of checks that were not made, or not finished, for want of it.
    """

    def __init__(self, seconds: float) -> None:
        """So many seconds are left."""
        self._left = seconds
        self._end = math.inf
        self.left_out = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time runs in here."""
        self._end = time.monotonic() + self._left
        try:
            yield
        finally:
            self._left = self._end - time.monotonic()

    def is_over(self) -> bool:
        """Whether none is left."""
        return time.monotonic() >= self._end


@dataclasses.dataclass(frozen=True)
class Grader:
    """Checks responses.

    Attributes:
      verifier: a name, see `verifiers.find`.
      time_limit: seconds for the check of one response.
      workers: processes; 0 for one a core, at most `MOST_WORKERS`.
      close: text that ends a thought; answers are looked for after the last one.
      open: text that begins a thought; a response whose last thought does not end has no answer.
      opened: a response begins inside of a thought.
      memory_limit: GiB that a check may take beyond what its process needs to start; 0 = any.
      step_time_limit: seconds for all checks of a step; 0 = any.
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
        """The time for all checks of a step. At the end, a line says how many it was too short
        for."""
        left = StepTime(self.step_time_limit or math.inf)
        yield left
        if left.left_out:
            LOGGER.warning(
                "data.problems.step_time_limit=%g seconds are over: %d checks of this step were "
                "not finished and count as failed",
                self.step_time_limit,
                left.left_out,
            )

    def grade(self, responses: Sequence[str], answer: str) -> list[Grade]:
        """The grades of the responses to one problem, as a step of its own; as of `grade_all`."""
        with self.step() as left:
            return self.grade_all([responses], [answer], left)[0]

    def grade_all(
        self, groups: Sequence[Sequence[str]], answers: Sequence[str], left: StepTime
    ) -> list[list[Grade]]:
        """The grades of all responses.

        Args:
          groups: the responses to each problem.
          answers: the right answer to each problem; a `Gold` says how many options it has.
          left: of `step`; what is not checked when it is over counts as failed.

        Raises:
          UserError: a verifier of the user's own raises.
        """
        with left.running():
            both = zip(groups, answers, strict=True)
            work = [(text, answer, self._tags) for group, answer in both for text in group]
            graded = iter(self._run(verifiers.graded, work, left))
            found = [[next(graded) for _ in group] for group in groups]
            read = [[one and one[0] for one in some] for some in found]
            shared = self._majorities(groups, read, answers, left)
        return [
            [
                Grade(
                    answer=one[0] if one else None,
                    correct=one is not None and one[1],
                    agrees=one is not None and one[0] in most,
                    confidence=one[2] if one else None,
                    failed=one is None,
                    score=one[3] if one else None,
                )
                for one in group
            ]
            for group, most in zip(found, shared, strict=True)
        ]

    def can_be_given(self, golds: Sequence[Gold]) -> list[str | None]:
        """What `verifiers.can_be_given` finds of each right answer: "", or why it cannot be used;
        None where the check took too long, or killed its process."""
        return self._run(verifiers.can_be_given, [(gold,) for gold in golds], StepTime(math.inf))

    @property
    def _tags(self) -> Tags:
        return Tags(self.open, self.close, self.opened)

    def _majorities(
        self,
        groups: Sequence[Sequence[str]],
        found: Sequence[Sequence[str | None]],
        golds: Sequence[str],
        left: StepTime,
    ) -> list[set[str]]:
        """The answer that most responses of each group give, in all ways in which they write it;
        of several the one given first. Empty for a group without an answer."""
        counts = [Counter(answer for answer in group if answer is not None) for group in found]
        pairs = [_that_matter(count) for count in counts]
        work = []
        for texts, answers, some, gold in zip(groups, found, pairs, golds, strict=True):
            says = dict(zip(reversed(answers), reversed(texts), strict=True))  # the first of each
            options = getattr(gold, "options", 0)
            work += [(says[one], says[other], options, self._tags) for one, other in some]
        verdicts = iter(self._run(verifiers.agreed, work, left))
        shared = []
        for count, some in zip(counts, pairs, strict=True):
            same = {answer: {answer} for answer in count}
            for one, other in some:
                if next(verdicts):
                    same[one].add(other)
                    same[other].add(one)
            votes = lambda answer, count=count, same=same: sum(count[x] for x in same[answer])
            shared.append(same[max(count, key=votes)] if count else set())
        return shared

    def _run(self, function: Callable, arguments: Sequence[tuple], left: StepTime) -> list[Any]:
        """What a function of `verifiers` gives for each; None for what failed."""
        workers = self.workers or min(os.cpu_count() or 1, MOST_WORKERS)
        key = (workers, self.verifier, self.memory_limit)
        found: dict[int, Any] = {}
        for tries_left in reversed(range(TRIES)):
            pool = _pool(key)
            try:
                self._run_rest(pool, function, arguments, found, left)
                break
            except BrokenProcessPool as error:
                _end(pool)  # its other processes still run
                _POOLS.pop(key, None)
                if not tries_left:
                    raise self._refused(error) from error
        left.left_out += len(arguments) - len(found)
        return [found.get(number) for number in range(len(arguments))]

    def _run_rest(
        self,
        pool: ProcessPool,
        function: Callable,
        arguments: Sequence[tuple],
        found: dict[int, Any],
        left: StepTime,
    ) -> None:
        """Adds to `found` what is not in it yet, while there is time left.

        Raises:
          BrokenProcessPool: a process ended while it had no check, or before it was seen to have
            one; the pool gives up on all of them then. What was found by then is in `found`.
        """
        limit = self.time_limit
        orphaned = 2 * limit + PATIENCE  # seconds; longer than this run lets a check take
        schedule = functools.partial(pool.schedule, limited_process.call, timeout=limit)
        jobs: dict[int, concurrent.futures.Future] = {}
        try:
            for number, each in enumerate(arguments):
                if number not in found:
                    try:
                        jobs[number] = schedule(args=(orphaned, function, self.verifier, *each))
                    except RuntimeError as error:  # it broke down before, or just now
                        raise BrokenProcessPool(str(error)) from error
            for number, job in jobs.items():
                self._wait(pool, job, left)
                if job.done():
                    found[number] = self._result(job)
        finally:
            for job in jobs.values():
                job.cancel()  # those that are left after an error, or for want of time

    def _wait(self, pool: ProcessPool, job: concurrent.futures.Future, left: StepTime) -> None:
        """Waits until a check has ended, or there is no time left.

        Raises:
          BrokenProcessPool: it never will. A pool that broke down forgets the checks that it had
            not handed to a process yet, and a process that was killed with the pool's lock leaves
            the others waiting for it.
        """
        patience = self.time_limit + PATIENCE
        while not job.done() and not left.is_over():
            concurrent.futures.wait([job], timeout=1)
            patience -= 1
            if not job.done() and not (pool.active and patience > 0):
                raise BrokenProcessPool("the processes ended, or do not answer")

    def _result(self, job: concurrent.futures.Future) -> Any:
        try:
            return job.result()
        except (concurrent.futures.TimeoutError, ProcessExpired):
            return None
        except BrokenProcessPool:
            raise
        except Exception as error:  # a verifier can raise what it likes
            if self.verifier in verifiers.VERIFIERS:  # no fault of the user's: the run goes on
                LOGGER.warning("a check failed: %s: %s", type(error).__name__, str(error)[:200])
                return None
            if isinstance(error, UserError):  # it says where in the verifier
                raise
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UserError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return UserError.of("data.problems.verifier", self.verifier, f"raised {reason}")


def _that_matter(count: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of answers, written otherwise, whose comparison tells the majority."""
    first = count.most_common(1)
    if first and 2 * first[0][1] > count.total():  # whatever the others are
        return [(other, first[0][0]) for other in count if other != first[0][0]]
    return list(itertools.combinations(count, 2))


def _pool(key: _Key) -> ProcessPool:
    """The processes of a program."""
    if (known := _POOLS.get(key)) is not None:
        return known
    workers, verifier, memory_limit = key
    if memory_limit and not limited_process.memory_is_limited():
        LOGGER.warning(
            "data.problems.memory_limit=%g GiB: this system does not limit the memory of a "
            "process, so a check may take all there is",
            memory_limit,
        )
    pool = _POOLS[key] = ProcessPool(
        max_workers=workers,
        context=limited_process.Context(),
        initializer=_begin,
        initargs=(verifier, int(memory_limit * limited_process.GIB)),
    )
    atexit.register(_end, pool)
    return pool


def _begin(verifier: str, memory: int) -> None:
    """What a process does before its first check."""
    limited_process.ignore_signals()
    verifiers.prepare(verifier)
    limited_process.limit_memory(memory)


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
