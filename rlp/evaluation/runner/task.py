"""A task as it is posed to one model, whatever its answers are."""

import abc
import contextlib
import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rlp.evaluation.benchmarks.benchmark import Example, Prompt
from rlp.evaluation.benchmarks.files import ProblemSet
from rlp.evaluation.benchmarks.suites import Entry
from rlp.evaluation.runner.answer_file import Key
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.evaluation.runner.result import Result
from rlp.evaluation.runner.settings import Cures
from rlp.runtime.errors import UserError

Add = Callable[[str, int, dict[str, Any]], None]  # receives a problem, a run and its record
Records = Mapping[Key, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task(abc.ABC):
    """A task as it is posed to one model.

    Attributes:
      model: the model.
      entry: the task in its suite.
      problems: the problems.
      examples: solved problems in its prompts.
      seed: of the sampling.
      cures: how settings are changed, for messages.
    """

    model: EvaluatedModel
    entry: Entry
    problems: ProblemSet
    examples: Sequence[Example]
    seed: int
    cures: Cures

    @property
    def total(self) -> int:
        """Number of responses."""
        return len(self.problems.problems) * self.entry.runs

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what all responses depend on, as JSON values."""

    @abc.abstractmethod
    def identities(self) -> dict[str, str]:
        """Return a hash of what a model is asked, and of what grades it if that happens at once, by
        problem.

        A response in a file is that of this task if its hash is the same.
        """

    @abc.abstractmethod
    def wording(self) -> tuple[str, ...]:
        """Return what its problems are posed in and read with: the prompt or context with its
        texts, and the extractor."""

    @abc.abstractmethod
    def check(self) -> None:
        """Check all prompts before anything is computed.

        Raises:
          UserError: If a text cannot be encoded, leaves no room for a response, or is one that the
            model cannot answer, such as a question with an option without tokens.
        """

    @contextlib.contextmanager
    def naming(self, problem: str) -> Iterator[None]:
        """Let an error name the task and a problem."""
        try:
            yield
        except UserError as error:
            raise error.within(f"{self.entry.task}, problem {problem}") from error

    @abc.abstractmethod
    def run(self, finished: Sequence[Key], add: Add) -> None:
        """Compute the responses that are missing.

        Args:
          finished: the responses that exist already.
          add: called with the problem, the run and the record of every response as soon as it is
            finished.
        """

    @abc.abstractmethod
    def result(self, records: Records) -> Result:
        """Return the scores, given the records of all responses."""


def texts_of(prompt: Prompt) -> tuple[str, ...]:
    """Return the name, the date and the texts of a prompt."""
    around = (prompt.before_examples, prompt.after_examples)
    return (prompt.name, prompt.date, prompt.text, prompt.example, *around, *prompt.stop)


def identity(*parts: object) -> str:
    """Return a short hash of what a response is to."""
    return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:12]


def seed_of(seed: int, *names: object) -> int:
    """Return a seed for a response, which depends on these names alone."""
    return zlib.crc32("/".join(map(str, (seed, *names))).encode(errors="replace"))
