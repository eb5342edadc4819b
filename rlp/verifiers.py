"""Whether a response gives the right answer. Pure functions of texts, which know nothing of JAX.

They run in processes of their own (`rlp/grading.py`): a library that simplifies what a network
wrote can take for ever, or all memory.
"""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable

from rlp.named import find_named

CHOICES = "ABCDEFGHIJ"
BOX = "\\boxed"
_CHOICE = (  # the last of the first that is found
    re.compile(rf"\\boxed\{{\s*(?:\\text\{{)?\(?([{CHOICES}])\b"),
    re.compile(rf"(?i:answer)(?:\s+is)?\W{{0,4}}([{CHOICES}])\b"),
    re.compile(rf"\b([{CHOICES}])\b"),
)


@dataclasses.dataclass(frozen=True)
class Verifier:
    """How answers are read and compared.

    Attributes:
      extract: the answer that a response gives, or None; of the text after the thought.
      equal: whether that answer and the right one are the same.
    """

    extract: Callable[[str], str | None]
    equal: Callable[[str, str], bool]


def math_answer(response: str) -> str | None:
    """The last boxed expression, else the last formula or number (math-verify)."""
    from math_verify import parse  # here: it takes a second, and few programs need it

    _be_quiet()
    read = lambda text: parse(text, parsing_timeout=None)
    # Of several boxes the library makes one list.
    found = read(response[max(response.rfind(BOX), 0) :])
    if not found and "\\" in response and BOX not in response:
        found = read(f"${response.strip()}$")  # nothing but a formula, without its signs
    return str(found[-1]).rstrip(".") or None if found else None


def math_equal(found: str, answer: str) -> bool:
    """Whether two expressions are the same one, or close numbers (math-verify)."""
    from math_verify import parse, verify

    _be_quiet()
    read = lambda text: parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return verify(read(answer), read(found), timeout_seconds=None)


def _be_quiet() -> None:
    """The library warns that its own time limit is off; whole processes have one here."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def whole_text(response: str) -> str | None:
    """The response itself, without the space around it."""
    return response.strip() or None


def same_text(found: str, answer: str) -> bool:
    """Whether the texts are equal but for the space around them."""
    return found.strip() == answer.strip()


def choice(response: str) -> str | None:
    """The last letter that is boxed, else the last that is called the answer, else the last one."""
    for pattern in _CHOICE:
        if found := pattern.findall(response):
            return found[-1]
    return None


VERIFIERS = {
    "math": Verifier(math_answer, math_equal),
    "choice": Verifier(choice, same_text),
    "exact": Verifier(whole_text, same_text),
}


def find(name: str) -> Verifier:
    """The verifier of that name, or the one that "<module>:<name>" says where to import.

    Raises:
      UserError: there is none.
    """
    return find_named("data.problems.verifier", name, VERIFIERS, Verifier, "rlp.verifiers")


def prepare(name: str) -> None:
    """Does what takes long the first time: imports, which are no part of a check's time.

    An error in it is one of the checks, too, and is told there.
    """
    with contextlib.suppress(Exception):
        verifier = find(name)
        if verifier.extract is math_answer:
            math_equal("x + 1", "1 + x")


def checked(name: str, response: str, answer: str) -> tuple[str | None, bool]:
    """What a response answers, and whether that is right: the work of a process."""
    verifier = find(name)
    found = verifier.extract(response)
    return found, found is not None and verifier.equal(found, answer)


def agreed(name: str, found: str, other: str) -> bool:
    """Whether two answers are the same: the work of a process."""
    return find(name).equal(found, other)
