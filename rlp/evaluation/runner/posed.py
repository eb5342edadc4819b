"""The tasks of a suite with their problems, which are posed to every model of an evaluation."""

import dataclasses
from pathlib import Path

from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import files as problem_files
from rlp.evaluation.benchmarks.files import ProblemSet
from rlp.evaluation.benchmarks.suites import Entry, Suite
from rlp.evaluation.runner.generation import GenerationTask
from rlp.evaluation.runner.likelihood import LikelihoodTask
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.evaluation.runner.settings import Settings
from rlp.evaluation.runner.task import Task


@dataclasses.dataclass(frozen=True)
class Posed:
    """A task of a suite as it is posed to all models.

    Attributes:
      entry: the task in its suite.
      problems: its problems.
    """

    entry: Entry
    problems: ProblemSet

    def to(self, model: EvaluatedModel, settings: Settings, data: Path) -> Task:
        """Return the task as it is posed to one model.

        Args:
          model: the model.
          settings: of the evaluation.
          data: the user's folder of benchmarks, for examples in prompts.

        Raises:
          UserError: If the task has no prompt for the model, or examples are missing.
        """
        benchmark = self.problems.benchmark
        name = settings.prompt(benchmark)
        if self.entry.by_likelihood:
            scoring = benchmark.scoring(name)
            return LikelihoodTask(
                model=model,
                entry=self.entry,
                problems=self.problems,
                scoring=scoring,
                examples=scoring.context.load_examples(data),
                thoughts=settings.thoughts if settings.think else 0,
                thought_length=settings.thought_length,
                seed=settings.seed,
                cures=settings.cures,
            )
        prompt = benchmark.prompt(name, base=model.template is None)
        return GenerationTask(
            model=model,
            entry=self.entry,
            problems=self.problems,
            prompt=prompt,
            examples=prompt.load_examples(data),
            extractor=settings.extractor(benchmark),
            think=settings.think,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens or benchmark.max_tokens,
            fixed=settings.max_tokens > 0,
            seed=settings.seed,
            cures=settings.cures,
        )


def pose(suite: Suite, settings: Settings, data: Path) -> list[Posed]:
    """Read the problems of a suite.

    Args:
      suite: the suite.
      settings: of the evaluation.
      data: the user's folder of benchmarks; it need not exist if all problems are generated.

    Raises:
      UserError: If a file is missing or cannot be used.
    """
    return [
        Posed(
            entry,
            problem_files.load(benchmarks.find(entry.spec), data).sample(settings.limit),
        )
        for entry in suite.entries
    ]
