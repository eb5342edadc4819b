"""Grade the responses to a benchmark, in processes with limits on time and memory.

    response → text after its thought → answer, format → equal to the gold answer?

Reading a response and comparing an answer are separate checks: an answer that takes too long to
compare is still an answer, and counts as a wrong one. Equal pairs of answers are compared once.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Sequence

from rlp.answers.limited_checks import LimitedChecks, StepTime
from rlp.answers.strict_equality import strictly_equal
from rlp.answers.verifiers import Tags, gym
from rlp.answers.verifiers.responses import after_thought
from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks.benchmark import Problem
from rlp.runtime import user_code

TIME_LIMIT = 10.0  # seconds for one comparison, as in NeMo-Skills
MEMORY_LIMIT = 2.0  # GiB
_BUILT_IN = "built-in tasks"  # which share their processes


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a response is worth.

    Attributes:
      answer: the extracted answer; None if there is none.
      correct: whether it equals the gold answer.
      complies: whether the response has the format that its prompt asks for.
      failed: a check exceeded its time or memory or ended its process; the response is not correct.
    """

    answer: str | None
    correct: bool
    complies: bool
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class ResponseGrader:
    """Grades responses to a task.

    Attributes:
      task: name of the task, see `benchmarks.find`.
      prompt: name of the prompt that posed the problems; "" for the default of chats.
      extractor: name of the extractor; "" for the one that fits the prompt.
      tags: the tags around a thought. The answer is read after the last closing tag; a response
        whose last thought is not closed has none.
      time_limit: seconds for one check.
      memory_limit: GiB that a check may take; 0 for no limit.
      workers: number of processes; 0 for one per core.
    """

    task: str
    prompt: str = ""
    extractor: str = ""
    tags: Tags = Tags("<think>", "</think>", False)
    time_limit: float = TIME_LIMIT
    memory_limit: float = MEMORY_LIMIT
    workers: int = 0

    def grade(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Return the verdict on each response, in order.

        Args:
          problems: the problem of each response.
          responses: texts, with their thoughts.

        Raises:
          UserError: If the task, the prompt or the extractor does not exist, or the user's task
            raises an error.
        """
        benchmark = benchmarks.find(self.task)
        prompt = benchmark.prompt(self.prompt)
        benchmark.extractor(self.extractor, prompt)
        read = self._checks().run(
            read_response,
            [(self.task, prompt.name, self.extractor, text, self.tags) for text in responses],
            StepTime(),
        )
        pairs = [
            (reading[0], problem.gold) if reading and reading[0] is not None else None
            for problem, reading in zip(problems, read, strict=True)
        ]
        unique = sorted({pair for pair in pairs if pair})
        work = [(self.task, *pair) for pair in unique]
        equal = dict(zip(unique, self._checks().run(same_answer, work, StepTime()), strict=True))
        return [
            Verdict(
                answer=reading[0] if reading else None,
                correct=pair is not None and equal[pair] is True,
                complies=reading is not None and reading[1],
                failed=reading is None or (pair is not None and equal[pair] is None),
            )
            for reading, pair in zip(read, pairs, strict=True)
        ]

    def _checks(self) -> LimitedChecks:
        return LimitedChecks(
            name=_processes(self.task),
            prepare=prepare,
            field=benchmarks.FIELD,
            built_in=benchmarks.is_built_in(self.task),
            time_limit=self.time_limit,
            workers=self.workers,
            memory_limit=self.memory_limit,
        )


def _processes(task: str) -> str:
    """Return the name of the processes that check responses to a task; tasks of one kind, whose
    code is of this project, share theirs."""
    if task.startswith(gym.PREFIX):
        return gym.PREFIX
    return _BUILT_IN if benchmarks.is_built_in(task) else task


def read_response(
    task: str, prompt: str, extractor: str, response: str, tags: Tags
) -> tuple[str | None, bool]:
    """Return the answer of a response, and whether it has the format that its prompt asks for."""
    text = after_thought(response, tags.open, tags.close, tags.opened)
    if text is None:
        return None, False
    with _errors_named(task):
        benchmark = benchmarks.find(task)
        chosen = benchmark.prompt(prompt)
        return benchmark.extractor(extractor, chosen).answer(text), bool(chosen.complies(text))


def same_answer(task: str, answer: str, gold: str) -> bool:
    """Return whether an answer equals the gold answer of its problem."""
    with _errors_named(task):
        return bool(benchmarks.find(task).equal(answer, gold))


def prepare(name: str) -> None:
    """Import the libraries of a task, so that this does not count as time of the first check.

    Errors are ignored here, since the checks raise and report them too.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # inside sympy
    with contextlib.suppress(Exception):
        if name == gym.PREFIX:
            gym.prepare()
        elif name == _BUILT_IN or benchmarks.find(name).equal is strictly_equal:
            strictly_equal("x + 1", "1 + x")


def _errors_named(task: str) -> contextlib.AbstractContextManager:
    """Return a context in which errors of a user's task name the task and its line."""
    if benchmarks.is_built_in(task):
        return contextlib.nullcontext()
    return user_code.running(f"{benchmarks.FIELD} {task!r}", benchmarks.code_of(task))
