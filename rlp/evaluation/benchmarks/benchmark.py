"""What a benchmark is: its problems, prompts, extractors and settings, as records.

    file → `Problem` → `Prompt` → text → response → `Extractor` → answer → equal to the gold answer?
    file → `Problem` → `OptionScoring` → context and options → log-likelihoods → option

A prompt and an extractor have a name and a date, since those of public evaluations change.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rlp.runtime.errors import UserError

FIELD = "task"  # what names a task, in messages
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FIELD = re.compile(r"\{(problem|examples|subject|solution|steps|answer)\}")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem of a benchmark.

    Attributes:
      id: name of the problem, unique in its benchmark.
      question: the question without its options.
      gold: the gold answer; the letter of an option if there are options.
      options: texts of the options; empty if the answer is a text.
      group: the subject, for tables and few-shot examples; "" for none.
      order: for options in another order than that of the file, the index in the file of each.
    """

    id: str
    question: str
    gold: str
    options: tuple[str, ...] = ()
    group: str = ""
    order: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Example:
    """A solved problem in a few-shot prompt.

    Attributes:
      problem: the problem; its gold answer is the answer that the prompt shows.
      solution: the reasoning without the statement of the answer; "" for none.
    """

    problem: Problem
    solution: str = ""


def question(problem: Problem) -> str:
    """Return the text of a problem without options."""
    return problem.question


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A way to pose problems.

    The templates contain the names of fields in braces: `text` {problem}, {examples} and {subject};
    `example` {problem}, {answer}, and {solution} or {steps} (the solution and a line end, or
    nothing). {examples} stands for `before_examples`, the examples and `after_examples`, and for
    nothing if there are none.

    Attributes:
      name: name of the prompt; a prompt that other people publish is named after them.
      date: month since which it is in use, "2025-11".
      source: where it is published, or "this project".
      text: template of the whole prompt.
      layout: returns the text of a problem, that is, of {problem}.
      chat: the prompt is the user's message in a chat; otherwise a text that a model continues.
      extractor: name of the extractor that fits the format which the prompt asks for; "" for the
        first of the benchmark.
      complies: returns whether a response, without its thought, has the format that the prompt asks
        for.
      examples: returns the solved problems from the user's folder of data; None for no examples.
        If they have groups, a prompt shows those of the group of its problem.
      shots: number of examples in a prompt.
      example: template of an example.
      before_examples, after_examples: texts around the examples.
      stop: texts that end a response.
    """

    name: str
    date: str
    source: str
    text: str
    layout: Callable[[Problem], str] = question
    chat: bool = True
    extractor: str = ""
    complies: Callable[[str], bool] = lambda response: True
    examples: Callable[[Path], Sequence[Example]] | None = None
    shots: int = 0
    example: str = ""
    before_examples: str = ""
    after_examples: str = ""
    stop: tuple[str, ...] = ()

    def load_examples(self, folder: Path) -> tuple[Example, ...]:
        """Return the solved problems that `fill` needs; empty for a prompt without examples.

        Args:
          folder: the user's folder of data.

        Raises:
          UserError: If their file is missing or cannot be used.
        """
        return tuple(self.examples(folder)) if self.examples else ()

    def fill(self, problem: Problem, examples: Sequence[Example] = ()) -> str:
        """Return the prompt of a problem.

        Args:
          problem: the problem.
          examples: from `load_examples`.

        Raises:
          UserError: If there are fewer examples than `shots`.
        """
        subject = problem.group.replace("_", " ")
        values = {"problem": self.layout(problem), "subject": subject, "examples": ""}
        if self.shots:
            shown = "".join(map(self._shown, self._chosen(problem, examples)))
            values["examples"] = self.before_examples + shown + self.after_examples
        return _filled(self.text, values)

    def _chosen(self, problem: Problem, examples: Sequence[Example]) -> Sequence[Example]:
        if any(example.problem.group for example in examples):
            examples = [x for x in examples if x.problem.group == problem.group]
        if len(examples) < self.shots:
            of_group = f" of {problem.group}" if problem.group else ""
            raise UserError(
                f"prompt {self.name} shows {self.shots} examples{of_group}, but only "
                f"{len(examples)} are there; complete their file, or choose a prompt without them"
            )
        return examples[: self.shots]

    def _shown(self, example: Example) -> str:
        problem = example.problem
        return _filled(
            self.example,
            {
                "problem": self.layout(problem),
                "solution": example.solution,
                "steps": f"{example.solution}\n" if example.solution else "",
                "answer": problem.gold,
            },
        )


def _filled(template: str, values: dict[str, str]) -> str:
    """Replace the fields of a template in one pass, so that those in a problem stay text."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), template)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A way to read the answer of a response.

    Attributes:
      name: name of the extractor; one that other people publish is named after them.
      date: month since which it is in use, "2025-11".
      extract: returns the answer in a response without its thought; None for no answer.
      meaning: what it reads, as a phrase.
    """

    name: str
    date: str
    extract: Callable[[str], str | None]
    meaning: str

    def answer(self, response: str) -> str | None:
        """Return the answer in a response without its thought; None if it is missing or empty."""
        found = self.extract(response)
        return found if found is not None and found.strip() else None


@dataclasses.dataclass(frozen=True)
class OptionScoring:
    """How the options of a problem are scored by their log-likelihood.

    Attributes:
      context: the text before every option.
      options: returns the texts that are scored after the context, with their leading space.
      per_character: the log-likelihood of an option is divided by its number of characters (without
        the leading space), as in `acc_norm` of lm-evaluation-harness. Otherwise options are
        compared by their log-likelihood.
    """

    context: Prompt
    options: Callable[[Problem], tuple[str, ...]]
    per_character: bool = False

    def chosen(self, problem: Problem, logprobs: Sequence[float | None]) -> str | None:
        """Return the letter of the option with the highest score; the first of equals.

        Args:
          problem: the problem.
          logprobs: the log-likelihood of each option, nats; None for one that is missing, as in
            JSON, which has no NaN.

        Returns:
          The letter; None for no answer, if any log-likelihood is missing or not finite, since
          the options cannot be compared.
        """
        texts = self.options(problem)
        lengths = [max(1, len(text.removeprefix(" "))) for text in texts]
        finite = [value for value in logprobs if value is not None and math.isfinite(value)]
        if len(finite) < len(logprobs):
            return None
        scores = [
            value / length if self.per_character else value
            for value, length in zip(finite, lengths, strict=True)
        ]
        return LETTERS[max(range(len(scores)), key=scores.__getitem__)]


_T = TypeVar("_T", Prompt, Extractor)


def same_text(answer: str, gold: str) -> bool:
    """Return whether an answer is the text of the gold answer, as for the letters of options."""
    return answer == gold


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark, also called a task.

    Attributes:
      name: name of the task, such as "gsm8k".
      title: its name in tables, such as "GSM8K".
      group: "math", "science" or another name; suites average over groups.
      size: number of problems of the public file.
      file: path below the user's folder of data, without the ending: "gsm8k/test"; "" if `read`
        generates the problems.
      source: where the public file is.
      licence: a note on its licence.
      read: yields the problems of a file; it gets the user's folder of data if there is no file.
      prompts: the prompts; the first chat prompt and the first other one are the defaults. Empty
        for a task that is scored by log-likelihood alone.
      extractors: the extractors; the first is the default of prompts that name none.
      equal: returns whether an extracted answer equals the gold answer.
      metric: what the score is, for tables.
      max_tokens: default limit of a response, tokens.
      runs: default number of responses to a problem: 1 is greedy, more are sampled.
      options: ways to score options by log-likelihood, the first of which is the default.
      subjects: number of groups of problems in the public file; 0 if they have none.
      private: its questions must not be printed or written.
    """

    name: str
    title: str
    group: str
    size: int
    file: str
    source: str
    licence: str
    read: Callable[[Path], Iterable[Problem]]
    prompts: tuple[Prompt, ...] = ()
    extractors: tuple[Extractor, ...] = ()
    equal: Callable[[str, str], bool] = same_text
    metric: str = "pass@1"
    max_tokens: int = 2048
    runs: int = 1
    options: tuple[OptionScoring, ...] = ()
    subjects: int = 0
    private: bool = False

    def prompt(self, name: str = "", base: bool = False) -> Prompt:
        """Return a prompt by its name, or a default.

        Args:
          name: name of a prompt; "" for the default.
          base: the default for models that continue a text, instead of that for chats.

        Raises:
          UserError: If there is no such prompt.
        """
        if name:
            return self._named("prompt", name, self.prompts)
        kind = "that a base model continues" if base else "for a chat"
        of_kind = [prompt for prompt in self.prompts if prompt.chat != base]
        if not of_kind:
            raise UserError(f"task {self.name} has no prompt {kind}; {_listed(self.prompts)}")
        return of_kind[0]

    def extractor(self, name: str = "", prompt: Prompt | None = None) -> Extractor:
        """Return an extractor by its name, or the one that fits a prompt.

        Raises:
          UserError: If there is no such extractor.
        """
        if name := name or (prompt.extractor if prompt else ""):
            return self._named("extractor", name, self.extractors)
        if not self.extractors:
            raise UserError(f"task {self.name} has no extractors; score it by log-likelihood")
        return self.extractors[0]

    def scoring(self, name: str = "") -> OptionScoring:
        """Return a way to score options by the name of its context, or the default.

        Raises:
          UserError: If there is none.
        """
        if not self.options:
            raise UserError(f"task {self.name} has no options to score; generate answers instead")
        if not name:
            return self.options[0]
        context = self._named("context", name, [scoring.context for scoring in self.options])
        return next(scoring for scoring in self.options if scoring.context is context)

    def _named(self, what: str, name: str, known: Sequence[_T]) -> _T:
        for item in known:
            if item.name == name:
                return item
        raise UserError(f"task {self.name} has no {what} {name!r}; {_listed(known)}")


def _listed(known: Sequence[Prompt] | Sequence[Extractor]) -> str:
    return f"use one of {', '.join(x.name for x in known)}" if known else "it has none at all"
