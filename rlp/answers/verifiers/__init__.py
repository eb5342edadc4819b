"""Whether a response gives the right answer. Pure functions of texts, which know nothing of JAX.

    markup       typography, Markdown, boxes, phrases that announce an answer
    responses    where in a response its answer stands
    mathematics  answers that are formulas or numbers, in the form of `formulas`; `equality`
                 compares them, `quantities` what is not a value: units, times of day, words
    choices      answers that are the letter of an option

They run in processes of their own (`rlp/answers/grading.py`): a library that simplifies what a
network wrote can take for ever, or all memory.
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

from rlp.answers.verifiers.choices import choice, right_letter
from rlp.answers.verifiers.mathematics import math_answer, math_equal, right_expression
from rlp.answers.verifiers.responses import after_thought, stated_confidence, where_the_answer_is
from rlp.runtime import user_code
from rlp.runtime.errors import UserError
from rlp.runtime.lookup import find_named, wrong_kind


@dataclasses.dataclass(frozen=True)
class Verifier:
    """How answers are read and compared.

    Attributes:
      extract: the answer that a response gives, or None; of the text after the thought. With
        `reads_options` it is called with the number of options of the problem as well (0 where the
        row does not list them).
      equal: whether that answer and the right one are the same. The second argument may be what
        `extract` found in another response, where the answers of a group are compared.
      gold: the right answer in the form that `equal` compares, of a value of a file and the texts
        of the options (None where the row does not list them); raises UserError, whose message is
        what follows "its answer", for a value that cannot be one. None takes texts as they are.
      reads_options: see `extract`.
      score: the reward of a response, a finite number, from the text after its thought and the
        right answer; 1 or more is correct. None for a verifier whose reward is 1 for a correct
        answer and 0 for any other.
    """

    extract: Callable[..., str | None]
    equal: Callable[[str, str], bool]
    gold: Callable[[object, Sequence[str] | None], str] | None = None
    reads_options: bool = False
    score: Callable[[str, str], float] | None = None

    def answer(self, response: str, options: int) -> str | None:
        """The answer that a response to a problem with so many options gives, or None."""
        return self.extract(response, options) if self.reads_options else self.extract(response)

    @property
    def compares(self) -> bool:
        """Whether it tells which responses give the same answer, as a mere function does not."""
        return self.score is None or self.extract is not whole_text


class Gold(str):
    """The right answer to a problem.

    Attributes:
      options: how many the problem has; 0 where the row does not list them.
    """

    options: int

    def __new__(cls, text: str, options: int = 0) -> Self:
        made = super().__new__(cls, text)
        made.options = options
        return made

    def __getnewargs__(self) -> tuple[str, int]:  # type: ignore[override]
        return str(self), self.options


def whole_text(response: str) -> str | None:
    """The response itself, without the space around it."""
    return response.strip() or None


def same_text(found: str, answer: str) -> bool:
    """Whether the texts are equal but for the space around them."""
    return found.strip() == answer.strip()


VERIFIERS = {
    "math": Verifier(math_answer, math_equal, right_expression),
    "choice": Verifier(choice, same_text, right_letter, reads_options=True),
    "exact": Verifier(whole_text, same_text),
}


FIELD = "data.problems.verifier"


def find(name: str) -> Verifier:
    """The verifier of that name, or the one that "<module>:<name>" says where to import: a
    `Verifier`, or a function (response, answer) -> number, which becomes its `score`.

    Raises:
      UserError: there is none, or the function does not take these two arguments.
    """
    ours, other = "rlp.answers.verifiers", "function (response, answer) -> number"
    found = find_named(FIELD, name, VERIFIERS, Verifier, ours, other=other)
    if isinstance(found, Verifier):
        return found
    if not callable(found):
        raise wrong_kind(FIELD, name, f"a {ours}.Verifier or {other}")
    try:
        inspect.signature(found).bind("response", "answer")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{FIELD}={name!r} cannot be called with (response, answer): {error}"
        ) from error
    return Verifier(whole_text, same_text, score=found)


def prepare(name: str) -> None:
    """Does what takes long the first time: imports, which are no part of a check's time.

    An error in it is one of the checks, too, and is reported there.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # sympy's, of its own past
    with contextlib.suppress(Exception):
        verifier = find(name)
        if verifier.extract is math_answer:
            math_equal("x + 1", "1 + x")


@dataclasses.dataclass(frozen=True)
class Tags:
    """What surrounds a thought.

    Attributes:
      open, close: the texts of the tags.
      opened: a response begins inside of a thought.
    """

    open: str
    close: str
    opened: bool


NO_THOUGHT = Tags("", "</think>", False)  # a text that may have a thought before its answer


def checked(name: str, response: str, answer: str) -> tuple[str | None, bool]:
    """What a text without a thought answers, and whether that is right."""
    verifier = find(name)
    found = verifier.answer(where_the_answer_is(response), getattr(answer, "options", 0))
    right = found is not None and verifier.equal(found, answer)
    return None if found is None else str(found), bool(right)


def graded(
    name: str, response: str, answer: str, tags: Tags = NO_THOUGHT
) -> tuple[str | None, bool, float | None, float | None]:
    """What a response answers, whether that is right, how sure it says that it is, and its score if
    the verifier gives one: the work of a process."""
    rest = after_thought(response, tags.open, tags.close, tags.opened)
    if rest is None:
        return None, False, None, None
    with _named_if_it_raises(name):
        if (function := find(name).score) is None:
            return *checked(name, rest, answer), stated_confidence(rest), None
        score = _scored(name, function, rest, answer)
        found = find(name).answer(where_the_answer_is(rest), getattr(answer, "options", 0))
        return found, score >= 1, stated_confidence(rest), score


def _scored(name: str, function: Callable[[str, str], float], response: str, answer: str) -> float:
    """The score that a function gives to the text after a thought.

    Raises:
      UserError: it is not a finite number.
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
    """Whether two responses give the same answer: the work of a process."""
    with _named_if_it_raises(name):
        return _agreed(name, one, other, options, tags)


def _named_if_it_raises(name: str) -> contextlib.AbstractContextManager:
    """While entered, an error of a verifier of the user's tells which one raised it, and where."""
    if name in VERIFIERS:
        return contextlib.nullcontext()
    file = user_code.file_of(name.partition(":")[0])
    return user_code.running(f"data.problems.verifier={name!r}", file)


def _agreed(name: str, one: str, other: str, options: int, tags: Tags) -> bool:
    verifier = find(name)
    found = []
    for response in (one, other):
        rest = after_thought(response, tags.open, tags.close, tags.opened)
        answer = None if rest is None else verifier.answer(where_the_answer_is(rest), options)
        if answer is None:
            return False
        found.append(answer)
    return bool(verifier.equal(*found))


def can_be_given(name: str, answer: Gold) -> str:
    """Why no response that says nothing but the right answer is judged right, as it stands or in a
    box; "" where one is: the work of a process.

    A verifier of one's own may want more of a response than its answer, so there it is enough that
    the answer equals itself, or that its function gives a number.
    """
    responses = (str(answer), f"\\boxed{{{answer}}}")
    try:
        if (score := find(name).score) is not None:
            _scored(name, score, str(answer), answer)
            return ""
        right = any(checked(name, response, answer)[1] for response in responses)
        if not right and name not in VERIFIERS:
            right = find(name).equal(str(answer), answer)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a verifier can raise what it likes
        return f"makes the verifier raise {type(error).__name__}: {error}"[:200]
    return "" if right else "would be judged wrong in a response that gives exactly it"
