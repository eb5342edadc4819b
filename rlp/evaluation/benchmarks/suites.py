"""Suites: tasks that are run together, each with its sampling, and the means of their scores."""

import dataclasses
import re
from collections.abc import Mapping

from rlp.answers.verifiers import gym
from rlp.evaluation import benchmarks
from rlp.runtime.errors import UserError

_NOT_IN_NAME = re.compile(r"[^-\w.@+=]+")
TEMPERATURE, TOP_P = 0.7, 0.95  # of several runs, as in NeMo-Skills


def file_name(name: str) -> str:
    """Return a name for a file or folder that stands for a model or a score."""
    return _NOT_IN_NAME.sub("_", name)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A task of a suite.

    Attributes:
      spec: what `benchmarks.find` finds the task by: its name, or the file of a task of the user.
      task: name of the task.
      group: name of the group of scores that it belongs to.
      runs: number of responses to each problem.
      temperature, top_p: of the samples; temperature 0 is greedy.
      by_likelihood: options are scored by their log-likelihood; nothing above applies.
    """

    spec: str
    task: str
    group: str
    runs: int
    temperature: float
    top_p: float
    by_likelihood: bool = False

    @property
    def name(self) -> str:
        """The name of its score, unique in a suite: "gsm8k avg@8" or "mmlu greedy"."""
        if self.by_likelihood:
            return f"{self.task} log-likelihood"
        return f"{self.task} avg@{self.runs}" if self.temperature else f"{self.task} greedy"

    @property
    def key(self) -> str:
        """The same for names of files and metrics: "gsm8k_avg@8"."""
        return file_name(self.name)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Tasks that are run together.

    Attributes:
      name: name of the suite; the list of its tasks if it has none.
      entries: the tasks.
      overall: the groups whose means are averaged to the overall score; empty for no such score.
      source: where this choice of tasks is from.
    """

    name: str
    entries: tuple[Entry, ...]
    overall: tuple[str, ...] = ()
    source: str = "this project"

    @property
    def reads_files(self) -> bool:
        """Whether a task reads a file; the problems of others are generated."""
        return any(benchmarks.find(entry.spec).file for entry in self.entries)


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean of scores.

    Attributes:
      name: "math", …, for a group; "overall" for the mean of group means; "plain mean".
      value: the mean; None if one of its scores is missing.
      of: what was averaged, which is its denominator: "4 scores", "3 group means".
    """

    name: str
    value: float | None
    of: str


def greedy(spec: str, group: str) -> Entry:
    """Return an entry with one greedy response to each problem."""
    return Entry(spec, benchmarks.find(spec).name, group, 1, 0.0, 1.0)


def sampled(spec: str, group: str, runs: int) -> Entry:
    """Return an entry with several sampled responses to each problem."""
    return Entry(spec, benchmarks.find(spec).name, group, runs, TEMPERATURE, TOP_P)


_MATH = ("gsm8k", "math500", "minerva_math", "amc23")
_SCIENCE = ("mmlu", "mmlu_pro", "gpqa_diamond")
_PAPER = (
    *(sampled(task, "math", 8) for task in _MATH),
    *(greedy(task, "science") for task in _SCIENCE),
    *(sampled(task, "science avg", 4) for task in _SCIENCE),
)
_AIME = tuple(sampled(task, "aime", 8) for task in ("aime24", "aime25"))
_GROUPS = ("math", "science", "science avg")
SUITES = {
    suite.name: suite
    for suite in (
        Suite("paper", _PAPER, _GROUPS, "arXiv 2510.01265, section 3.1 and table 2"),
        Suite("paper_and_aime", (*_PAPER, *_AIME), _GROUPS),
        Suite("math", tuple(sampled(task, "math", 8) for task in _MATH)),
        Suite("science", tuple(greedy(task, "science") for task in _SCIENCE)),
        Suite("aime", _AIME),
        Suite(
            "quick",
            tuple(greedy(task, group) for task, group in (("gsm8k", "math"), ("mmlu", "science"))),
        ),
    )
}


def find(spec: str) -> Suite:
    """Return a suite by its name, or one of the tasks in a list.

    Args:
      spec: name of a suite, or names of tasks separated by commas (not those inside brackets of a
        generated task), which have their default number of runs.

    Raises:
      UserError: If it is empty, a task is listed twice, or a task does not exist.
    """
    spec = spec.strip()
    if spec in SUITES:
        return SUITES[spec]
    generated, rest = gym.split(spec)
    names = generated + [name.strip() for name in rest.split(",") if name.strip()]
    if not names:
        raise UserError(f"no tasks: name a suite ({', '.join(SUITES)}) or tasks, with commas")
    if len(names) == 1 and names[0].isidentifier() and names[0] not in benchmarks.BENCHMARKS:
        known = ", ".join([*SUITES, *benchmarks.BENCHMARKS])
        raise UserError(
            f"{names[0]!r} is neither a suite nor a task; use one of {known}, or the Python file "
            "of a task of your own"
        )
    entries = tuple(map(_default_entry, names))
    if len({entry.spec for entry in entries}) < len(entries):
        raise UserError(f"{spec!r} lists a task twice; name each task once")
    return Suite(spec, entries)


def _default_entry(spec: str) -> Entry:
    task = benchmarks.find(spec)
    spec = task.name if spec.startswith(gym.PREFIX) else spec  # with all of its options
    return sampled(spec, task.group, task.runs) if task.runs > 1 else greedy(spec, task.group)


def means(suite: Suite, scores: Mapping[str, float]) -> list[Mean]:
    """Return the mean of each group, the overall score, and the mean of all scores.

    Args:
      suite: the suite.
      scores: name of an entry → its accuracy; entries that are missing have no score yet.
    """
    groups: dict[str, list[str]] = {}
    for entry in suite.entries:
        groups.setdefault(entry.group, []).append(entry.name)
    found = [
        _mean(group, [scores.get(name) for name in names], "score")
        for group, names in groups.items()
    ]
    result = list(found)
    if suite.overall:
        of_group = {mean.name: mean.value for mean in found}
        values = [of_group[group] for group in suite.overall]
        result.append(_mean("overall", values, "group mean"))
    every = [scores.get(entry.name) for entry in suite.entries]
    return [*result, _mean("plain mean", every, "score")]


def _mean(name: str, values: list[float | None], what: str) -> Mean:
    known = [value for value in values if value is not None]
    of = f"{len(values)} {what}{'s' if len(values) > 1 else ''}"
    return Mean(name, sum(known) / len(known) if len(known) == len(values) else None, of)
