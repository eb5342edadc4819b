"""What responses are worth: their answers, checked in processes with a time limit each.

    responses → answers → right or wrong, agreed or not, how sure     `Grader.grade`

Processes, not threads: a verifier that hangs is killed with its process, and no signal handler of
the run is touched. (math-verify sets an alarm signal, which only a main thread may.)
"""

import atexit
import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlp import verifiers
from rlp.errors import UserError
from rlp.verifiers import Gold, Tags

LOGGER = logging.getLogger(__name__)

MOST_WORKERS = 16  # where the number is not given
TRIES = 5  # of checks whose processes broke down together
PATIENCE = 120  # seconds that a check may take beyond its limit: processes have to start
_POOLS: dict[tuple[int, str], ProcessPool] = {}  # by number of workers and name of the verifier


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a response is worth.

    Attributes:
      answer: that it gives; None where none can be read.
      correct: that is the right one.
      agrees: it is the answer that most responses of its group give.
      confidence: that it states, in [0, 1]; None where none can be read.
      failed: its check took too long, killed its process, or raised an error (of a verifier of
        ours); then it counts as without an answer.
    """

    answer: str | None
    correct: bool
    agrees: bool
    confidence: float | None
    failed: bool


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
    """

    verifier: str
    time_limit: float
    workers: int
    close: str
    open: str = ""
    opened: bool = False

    def grade(self, responses: Sequence[str], answer: str) -> list[Grade]:
        """The grades of the responses to one problem; as of `grade_all`."""
        return self.grade_all([responses], [answer])[0]

    def grade_all(
        self, groups: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> list[list[Grade]]:
        """The grades of all responses.

        Args:
          groups: the responses to each problem.
          answers: the right answer to each problem; a `Gold` says how many options it has.

        Raises:
          UserError: a verifier of the user's own raises.
        """
        both = zip(groups, answers, strict=True)
        work = [(text, answer, self._tags) for group, answer in both for text in group]
        graded = iter(self._run(verifiers.graded, work))
        found = [[next(graded) for _ in group] for group in groups]
        shared = self._majorities(
            groups, [[one and one[0] for one in some] for some in found], answers
        )
        return [
            [
                Grade(
                    answer=one[0] if one else None,
                    correct=one is not None and one[1],
                    agrees=one is not None and one[0] in most,
                    confidence=one[2] if one else None,
                    failed=one is None,
                )
                for one in group
            ]
            for group, most in zip(found, shared, strict=True)
        ]

    def can_be_given(self, golds: Sequence[Gold]) -> list[str | None]:
        """What `verifiers.can_be_given` finds of each right answer: "", or why it cannot be used;
        None where the check took too long, or killed its process."""
        return self._run(verifiers.can_be_given, [(gold,) for gold in golds])

    @property
    def _tags(self) -> Tags:
        return Tags(self.open, self.close, self.opened)

    def _majorities(
        self,
        groups: Sequence[Sequence[str]],
        found: Sequence[Sequence[str | None]],
        golds: Sequence[str],
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
        verdicts = iter(self._run(verifiers.agreed, work))
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

    def _run(self, function: Callable, arguments: Sequence[tuple]) -> list[Any]:
        """What a function of `verifiers` gives for each; None for what failed."""
        workers = self.workers or min(os.cpu_count() or 1, MOST_WORKERS)
        found: dict[int, Any] = {}
        for tries_left in reversed(range(TRIES)):
            pool = _pool(workers, self.verifier)
            try:
                self._run_rest(pool, function, arguments, found)
                break
            except BrokenProcessPool as error:
                _end(pool)  # its other processes still run
                _POOLS.pop((workers, self.verifier), None)
                if not tries_left:
                    raise self._refused(error) from error
        return [found[number] for number in range(len(arguments))]

    def _run_rest(
        self,
        pool: ProcessPool,
        function: Callable,
        arguments: Sequence[tuple],
        found: dict[int, Any],
    ) -> None:
        """Adds to `found` what is not in it yet.

        Raises:
          BrokenProcessPool: a process ended while it had no check, or before it was seen to have
            one; the pool gives up on all of them then. What was found by then is in `found`.
        """
        schedule = functools.partial(pool.schedule, function, timeout=self.time_limit)
        jobs: dict[int, concurrent.futures.Future] = {}
        try:
            for number, each in enumerate(arguments):
                if number not in found:
                    try:
                        jobs[number] = schedule(args=(self.verifier, *each))
                    except RuntimeError as error:  # it broke down before, or just now
                        raise BrokenProcessPool(str(error)) from error
            for number, job in jobs.items():
                self._wait(pool, job)
                found[number] = self._result(job)
        finally:
            for job in jobs.values():
                job.cancel()  # those that are left after an error

    def _wait(self, pool: ProcessPool, job: concurrent.futures.Future) -> None:
        """Waits until a check has ended.

        Raises:
          BrokenProcessPool: it never will. A pool that broke down forgets the checks that it had
            not handed to a process yet, and a process that was killed with the pool's lock leaves
            the others waiting for it.
        """
        patience = self.time_limit + PATIENCE
        while not job.done():
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
        return UserError(f"data.problems.verifier={self.verifier!r} raised {reason}")


def _that_matter(count: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of answers, written otherwise, whose comparison tells the majority."""
    first = count.most_common(1)
    if first and 2 * first[0][1] > count.total():  # whatever the others are
        return [(other, first[0][0]) for other in count if other != first[0][0]]
    return list(itertools.combinations(count, 2))


def _pool(workers: int, verifier: str) -> ProcessPool:
    """The processes of a program; spawned, since a fork would lose the threads that JAX has."""
    if (known := _POOLS.get((workers, verifier))) is not None:
        return known
    pool = _POOLS[workers, verifier] = ProcessPool(
        max_workers=workers,
        context=multiprocessing.get_context("spawn"),
        initializer=verifiers.prepare,
        initargs=(verifier,),
    )
    atexit.register(_end, pool)
    return pool


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
