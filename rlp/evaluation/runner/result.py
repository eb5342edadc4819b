"""The scores of a model in a task, with its answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rlp.evaluation.benchmarks.files import ProblemSet
from rlp.evaluation.benchmarks.metrics import Scores


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response and its verdict.

    Attributes:
      text: the response; "" for a private task, and for options.
      answer: the extracted answer, or the letter of the chosen option; None if there is none.
      correct: whether it equals the gold answer.
      complies: whether the response has the format that its prompt asks for.
      truncated: share of what was sampled that ended at the limit of tokens: 0 or 1 for a response,
        the share of the thoughts before options.
      tokens: number of sampled tokens.
    """

    text: str
    answer: str | None
    correct: bool
    complies: bool
    truncated: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The scores of a model in a task.

    Attributes:
      model: name of the model.
      entry: name of the score in its suite.
      problems: the problems.
      method: how answers came about: generated or chosen by log-likelihood, with thoughts or not.
      prompt: name and date of the prompt or context.
      extractor: name and date of the extractor; "" if options were scored.
      identity: what tells the parameters of the model from others.
      scores: accuracy and what stands beside it.
      tokens: mean number of sampled tokens per response.
      answers: the answers, per problem and run.
    """

    model: str
    entry: str
    problems: ProblemSet
    method: str
    prompt: str
    extractor: str
    identity: Mapping[str, Any]
    scores: Scores
    tokens: float
    answers: Sequence[Sequence[Answer]]

    def summary(self) -> dict[str, Any]:
        """Return everything but the answers, as JSON values."""
        benchmark = self.problems.benchmark
        return {
            "model": self.model,
            "identity": dict(self.identity),
            "entry": self.entry,
            "task": benchmark.name,
            "title": benchmark.title,
            "metric": benchmark.metric,
            "size": benchmark.size,
            "part": self.problems.part,
            "problems_digest": self.problems.digest,
            "method": self.method,
            "prompt": self.prompt,
            "extractor": self.extractor,
            "tokens": self.tokens,
            "by_group": self.by_group(),
            "orders": {x.id: x.order for x in self.problems.problems if x.order},
            **dataclasses.asdict(self.scores),
        }

    def by_group(self) -> dict[str, dict[str, float]]:
        """Return the accuracy and the number of problems of every group of problems."""
        groups: dict[str, list[float]] = {}
        for problem, answers in zip(self.problems.problems, self.answers, strict=True):
            share = sum(answer.correct for answer in answers) / len(answers)
            if problem.group:
                groups.setdefault(problem.group, []).append(share)
        return {
            name: {"accuracy": sum(shares) / len(shares), "problems": len(shares)}
            for name, shares in sorted(groups.items())
        }

    def examples(self, count: int) -> list[dict[str, Any]]:
        """Return the first problems with their answers, as JSON values; none of a private task."""
        if self.problems.benchmark.private:
            return []
        pairs = zip(self.problems.problems, self.answers, strict=True)
        return [
            {
                "id": problem.id,
                "question": problem.question,
                "options": list(problem.options),
                "gold": problem.gold,
                "answers": [dataclasses.asdict(answer) for answer in answers],
            }
            for problem, answers in list(pairs)[:count]
        ]
