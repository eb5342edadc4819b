"""Grade responses: verifiers check their answers in processes with limits on time and memory.

    responses → answers → correct or not, score, majority or not, confidence     `Grader.grade`

`rlp/answers/limited_checks.py` runs the processes.
"""

import dataclasses
import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlp.answers import verifiers
from rlp.answers.limited_checks import LimitedChecks, StepTime
from rlp.answers.verifiers import Gold, Tags

LOGGER = logging.getLogger(__name__)


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
        checks = LimitedChecks(
            name=self.verifier,
            prepare=verifiers.prepare,
            field=verifiers.FIELD,
            built_in=self.verifier in verifiers.VERIFIERS,
            time_limit=self.time_limit,
            workers=self.workers,
            memory_limit=self.memory_limit,
        )
        return checks.run(function, [(self.verifier, *args) for args in arguments], step_time)


def _deciding_pairs(count: Counter[str]) -> list[tuple[str, str]]:
    """Return the pairs of different texts whose comparison determines the majority answer."""
    first = count.most_common(1)
    if first and 2 * first[0][1] > count.total():  # already a majority: only find its equals
        return [(other, first[0][0]) for other in count if other != first[0][0]]
    return list(itertools.combinations(count, 2))
