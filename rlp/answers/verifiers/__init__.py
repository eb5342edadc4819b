"""Verifiers: whether a response gives the gold answer. Pure functions of texts, without JAX.

    markup       typography, Markdown, boxes, phrases that announce an answer
    responses    the part of a response that contains its answer
    mathematics  answers that are formulas or numbers, as parsed by `formulas`; `equality` compares
                 them, `quantities` handles units, times of day and words
    choices      answers that are the letter of an option
    gym          problems of reasoning-gym, which has a scorer for each

They run in separate processes (`rlp/answers/limited_checks.py`), since simplifying the output of a
model can take unlimited time or memory.
"""

import contextlib
import dataclasses
import inspect
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from rlp.answers.verifiers import gym
from rlp.answers.verifiers.choices import choice, gold_letter
from rlp.answers.verifiers.mathematics import gold_expression, math_answer, math_equal
from rlp.answers.verifiers.responses import after_thought, answer_region, stated_confidence
from rlp.runtime import user_code
from rlp.runtime.errors import UserError
from rlp.runtime.lookup import find_named, wrong_kind


@dataclasses.dataclass(frozen=True)
class Verifier:
    """Functions that extract and compare answers.

    Attributes:
      extract: extracts the answer from the text after the thought of a response, or returns None.
        With `reads_options`, its second argument is the number of options of the problem (0 if the
        row does not list them).
      equal: returns whether an extracted answer equals the gold answer. To compare the answers of a
        group, the second argument is the extracted answer of another response.
      gold: converts a value of a file and the texts of the options (None if the row does not list
        them) to the gold answer that `equal` compares. It raises UserError for an unusable value;
        the message continues "the gold answer". None leaves texts unchanged.
      reads_options: see `extract`.
      score: reward function of the text after the thought and the gold answer; returns a finite
        number, where 1 or more is correct. None for a verifier whose reward is 1 for a correct
        answer and 0 for any other.
    """

    extract: Callable[..., str | None]
    equal: Callable[[str, str], bool]
    gold: Callable[[object, Sequence[str] | None], str] | None = None
    reads_options: bool = False
    score: Callable[[str, str], float] | None = None

    def answer(self, response: str, options: int) -> str | None:
        """Extract the answer from a response to a problem with `options` options, or None."""
        return self.extract(response, options) if self.reads_options else self.extract(response)

    @property
    def compares(self) -> bool:
        """Whether the verifier can compare responses; a plain reward function cannot."""
        return self.score is None or self.extract is not whole_text


class Gold(str):
    """The gold answer to a problem.

    Attributes:
      options: number of options of the problem; 0 if the row does not list them.
    """

    options: int

    def __new__(cls, text: str, options: int = 0) -> Self:
        gold = super().__new__(cls, text)
        gold.options = options
        return gold

    def __getnewargs__(self) -> tuple[str, int]:  # type: ignore[override]
        return str(self), self.options


def whole_text(response: str) -> str | None:
    """Return the response without surrounding white space; None if it is empty."""
    return response.strip() or None


def same_text(extracted: str, gold: str) -> bool:
    """Return whether the texts are equal except for surrounding white space."""
    return extracted.strip() == gold.strip()


VERIFIERS = {
    "math": Verifier(math_answer, math_equal, gold_expression),
    "choice": Verifier(choice, same_text, gold_letter, reads_options=True),
    "exact": Verifier(whole_text, same_text),
    "reasoning_gym": Verifier(whole_text, same_text, gym.gold, score=gym.score),
}


FIELD = "data.problems.verifier"


def find(name: str) -> Verifier:
    """Return the verifier with this name, or import the one that "<module>:<name>" names: a
    `Verifier`, or a function (response, answer) -> number, which becomes its `score`.

    Raises:
      UserError: If the verifier does not exist, or the function does not take two arguments.
    """
    module, other = "rlp.answers.verifiers", "function (response, answer) -> number"
    verifier = find_named(FIELD, name, VERIFIERS, Verifier, module, other=other)
    if isinstance(verifier, Verifier):
        return verifier
    if not callable(verifier):
        raise wrong_kind(FIELD, name, f"a {module}.Verifier or {other}")
    try:
        inspect.signature(verifier).bind("response", "answer")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{FIELD}={name!r} cannot be called with (response, answer): {error}"
        ) from error
    return Verifier(whole_text, same_text, score=verifier)


def prepare(name: str) -> None:
    """Import the libraries of a verifier, so that this does not count as time of the first check.

    Errors are ignored here, since the checks raise and report them too.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # inside sympy
    with contextlib.suppress(Exception):
        verifier = find(name)
        if verifier.extract is math_answer:
            math_equal("x + 1", "1 + x")
        if verifier.score is gym.score:
            gym.prepare()


@dataclasses.dataclass(frozen=True)
class Tags:
    """The tags around a thought.

    Attributes:
      open, close: the texts of the tags.
      opened: responses begin inside a thought.
    """

    open: str
    close: str
    opened: bool


NO_THOUGHT = Tags("", "</think>", False)  # a closed thought before the answer is optional


def checked(name: str, response: str, answer: str) -> tuple[str | None, bool]:
    """Extract the answer of a text without a thought; return it and whether it is correct."""
    verifier = find(name)
    extracted = verifier.answer(answer_region(response), getattr(answer, "options", 0))
    correct = extracted is not None and verifier.equal(extracted, answer)
    return None if extracted is None else str(extracted), bool(correct)


def graded(
    name: str, response: str, answer: str, tags: Tags = NO_THOUGHT
) -> tuple[str | None, bool, float | None, float | None]:
    """Return the extracted answer, whether it is correct, the stated confidence, and the score if
    the verifier has one. Runs in a worker process."""
    rest = after_thought(response, tags.open, tags.close, tags.opened)
    if rest is None:
        return None, False, None, None
    with _errors_named(name):
        if (function := find(name).score) is None:
            return *checked(name, rest, answer), stated_confidence(rest), None
        score = _scored(name, function, rest, answer)
        extracted = find(name).answer(answer_region(rest), getattr(answer, "options", 0))
        return extracted, score >= 1, stated_confidence(rest), score


def _scored(name: str, function: Callable[[str, str], float], response: str, answer: str) -> float:
    """Return the score of a user's function for the text after a thought.

    Raises:
      UserError: If the score is not a finite number.
    """
    score = function(response, str(answer))
    if not isinstance(score, numbers.Real | np.bool_):
        raise UserError(
            f"{FIELD}={name!r} returned a {type(score).__name__}; return a finite number or a bool"
        )
    if not math.isfinite(score):
        raise UserError(f"{FIELD}={name!r} returned {score}; return a finite number")
    return float(score)


def agreed(name: str, one: str, other: str, options: int = 0, tags: Tags = NO_THOUGHT) -> bool:
    """Return whether two responses give the same answer. Runs in a worker process."""
    with _errors_named(name):
        return _agreed(name, one, other, options, tags)


def _errors_named(name: str) -> contextlib.AbstractContextManager:
    """Return a context in which errors of a user's verifier name the verifier and its line."""
    if name in VERIFIERS:
        return contextlib.nullcontext()
    file = user_code.file_of(name.partition(":")[0])
    return user_code.running(f"data.problems.verifier={name!r}", file)


def _agreed(name: str, one: str, other: str, options: int, tags: Tags) -> bool:
    verifier = find(name)
    answers = []
    for response in (one, other):
        rest = after_thought(response, tags.open, tags.close, tags.opened)
        answer = None if rest is None else verifier.answer(answer_region(rest), options)
        if answer is None:
            return False
        answers.append(answer)
    return bool(verifier.equal(*answers))


def why_unusable(name: str, answer: Gold) -> str:
    """Return why the verifier rejects the gold answer itself as a response, plain and in a box; ""
    if it accepts one of them. Runs in a worker process.

    A user's verifier may require more of a response than its answer, so it is enough that the gold
    answer equals itself, or that the score is a number.
    """
    responses = (str(answer), f"\\boxed{{{answer}}}")
    try:
        if (score := find(name).score) is not None:
            _scored(name, score, str(answer), answer)
            return ""
        correct = any(checked(name, response, answer)[1] for response in responses)
        if not correct and name not in VERIFIERS:
            correct = find(name).equal(str(answer), answer)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a verifier can raise any error
        return f"makes the verifier raise {type(error).__name__}: {error}"[:200]
    return "" if correct else "is rejected by the verifier even as the whole response"
