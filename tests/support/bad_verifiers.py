"""Verifiers that hang or crash, for `grading_test`; worker processes import them."""

import contextlib
import os
import time

from rlp.answers.verifiers import Verifier, same_text, whole_text


def _obey(response: str) -> str | None:
    """Execute the order in a response; any other response is its own answer."""
    order = response.strip()
    if order == "hang":
        time.sleep(600)
    if order == "exit":
        os._exit(3)
    if order == "eat":
        return str(len(bytearray(2**29)))
    if order == "forget":  # like a library that catches all errors and continues without memory
        with contextlib.suppress(MemoryError):
            bytearray(2**29)
        return "forgot"
    if order == "pid":
        return str(os.getpid())
    if order == "raise":
        raise ValueError("two\nlines")
    return order or None


def _equal(found: str, answer: str) -> bool:
    if (found, answer) == ("left", "right"):
        time.sleep(600)
    return same_text(found, answer)


OBEDIENT = Verifier(_obey, _equal)


def _picky(found: str, answer: str) -> bool:
    if answer == "hang":
        time.sleep(600)
    if answer == "raise":
        raise ValueError("it has two lines")
    return not answer.startswith("wrong") and same_text(found, answer)


PICKY = Verifier(whole_text, _picky)


def number(response: str, answer: str) -> object:
    """Return a number as a verifier, or the value that a response orders."""
    orders = {"nan": float("nan"), "text": "1", "none": None, "true": True, "minus": -0.5}
    return orders.get(response.strip(), len(response.strip()) / len(answer))


def of_one(response: str) -> float:
    return 1.0
