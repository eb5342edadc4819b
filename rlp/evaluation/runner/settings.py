"""How the tasks of an evaluation are posed; the same for all of its models."""

import dataclasses
from collections.abc import Callable, Sequence

from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import suites
from rlp.evaluation.benchmarks.benchmark import Benchmark
from rlp.evaluation.benchmarks.suites import Entry, Suite
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cures:
    """What a user does who is told to change a setting, in messages.

    Attributes:
      fewer_tokens: lowers `Settings.max_tokens`.
      shorter_thoughts: lowers `Settings.thought_length`.
      no_think: leaves out `Settings.think`.
    """

    fewer_tokens: str = "lower --max_tokens"
    shorter_thoughts: str = "lower --thought_length"
    no_think: str = "leave out --think"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How tasks are posed.

    Attributes:
      likelihood: options are chosen by their log-likelihood; otherwise, answers are read from
        generated text. Tasks without prompts are scored by log-likelihood in any case.
      think: a response begins with the opening thinking tag, and options are scored after thoughts.
      prompts: names of prompts, or of contexts of options; a task uses the first one that it has,
        or its default.
      extractors: names of extractors, likewise.
      runs: responses to a problem; 0 for the number of the suite.
      temperature: of the samples; None for that of the suite, or 0.7 for several runs of a task
        that the suite runs once.
      top_p: of the samples; None for 0.95.
      top_k: of the samples; 0 for no limit.
      max_tokens: most tokens of a response; 0 for the limit of the task.
      limit: most problems of a task, evenly spread over its file; 0 for all.
      thoughts: thoughts before the options of a problem, with `think`.
      thought_length: most tokens of such a thought.
      seed: of the sampling.
      cures: how the settings are changed, for messages; the default names the flags of
        `launch.evaluate`.
    """

    likelihood: bool = False
    think: bool = False
    prompts: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ()
    runs: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    max_tokens: int = 0
    limit: int = 0
    thoughts: int = 4
    thought_length: int = 256
    seed: int = 0
    cures: Cures = Cures()

    def of(self, suite: Suite) -> Suite:
        """Return a suite whose tasks are posed in this way.

        Raises:
          UserError: If no task of the suite has a prompt or an extractor, or if two scores of the
            suite would be the same.
        """
        self._check_names(suite)
        entries = [self._entry(entry) for entry in suite.entries]
        keys = [entry.key for entry in entries]
        if twice := [entry.name for entry in entries if keys.count(entry.key) > 1]:
            raise UserError(
                f"suite {suite.name} would have the score {twice[0]!r} twice with these settings; "
                "name its tasks instead, each once"
            )
        return dataclasses.replace(suite, entries=tuple(entries))

    def _entry(self, entry: Entry) -> Entry:
        task = benchmarks.find(entry.spec)
        if self.by_likelihood(task):
            task.scoring(self.prompt(task))
            return dataclasses.replace(
                entry, runs=1, temperature=0.0, top_p=1.0, by_likelihood=True
            )
        runs = self.runs or entry.runs
        default = suites.TEMPERATURE if runs > 1 else entry.temperature
        temperature = default if self.temperature is None else self.temperature
        if not temperature and runs > 1:
            raise UserError(
                f"{entry.task}: {runs} greedy responses would be equal; set runs to 1, or a "
                "temperature above 0"
            )
        top_p = self.top_p if self.top_p is not None else suites.TOP_P
        return dataclasses.replace(
            entry, runs=runs, temperature=temperature, top_p=top_p if temperature else 1.0
        )

    def _check_names(self, suite: Suite) -> None:
        tasks = [benchmarks.find(entry.spec) for entry in suite.entries]
        kinds: tuple[tuple[str, Sequence[str], Callable], ...] = (
            ("prompt", self.prompts, self._prompt_names),
            ("extractor", self.extractors, extractor_names),
        )
        for what, names, known in kinds:
            every = dict.fromkeys(name for task in tasks for name in known(task))
            for name in names:
                if name not in every:
                    raise UserError(
                        f"no task of {suite.name} has the {what} {name!r}; they have: "
                        f"{', '.join(every) or 'none'}"
                    )

    def by_likelihood(self, task: Benchmark) -> bool:
        """Return whether a task is scored by the log-likelihood of options."""
        return self.likelihood or not task.prompts

    def prompt(self, task: Benchmark) -> str:
        """Return the name of the prompt of a task, or of its context; "" for the default."""
        return _first(self.prompts, self._prompt_names(task))

    def _prompt_names(self, task: Benchmark) -> list[str]:
        if self.by_likelihood(task):
            return [scoring.context.name for scoring in task.options]
        return [prompt.name for prompt in task.prompts]

    def extractor(self, task: Benchmark) -> str:
        """Return the name of the extractor of a task; "" for the one that fits its prompt."""
        return _first(self.extractors, extractor_names(task))


def extractor_names(task: Benchmark) -> list[str]:
    """Return the names of the extractors of a task."""
    return [extractor.name for extractor in task.extractors]


def _first(names: Sequence[str], known: Sequence[str]) -> str:
    return next((name for name in names if name in known), "")
