"""Equality of an extracted answer and a gold answer as benchmarks of mathematics define it.

The rules are those of NeMo-Skills (`math_equal` at commit 0b012df, November 2025), stated again:

1. A gold answer that is a letter from A to J is equal to a text in which math-verify reads it.
2. A percent sign after a plain number, and points and backslashes at the end, are removed.
3. Texts that are equal after math-verify's normalization of LaTeX, without spaces, are equal.
4. Two texts of letters and commas, or of digits alone, are compared in no other way: 027 is not 27.
5. Anything else is parsed as a formula and compared by math-verify, so 27 equals 27.0.

Rewards use the more lenient rules of `rlp/answers/verifiers`. A comparison can take unlimited time
and memory, so it runs in `rlp/answers/limited_checks.py`.
"""

import re

from rlp.answers.verifiers.formulas import be_quiet

_LETTERS = tuple("ABCDEFGHIJ")
_PERCENT = re.compile(r"(\d+(?:\.\d*)?)(?:\\%|%)")
_LITERAL = re.compile(r"[a-zA-Z ,]+|[0-9 ]+")
_DELIMITERS = (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_DIGITS = 15  # numeric_precision of math-verify


def strictly_equal(answer: str, gold: str) -> bool:
    """Return whether an answer is equal to the gold answer."""
    from latex2sympy2_extended import NormalizationConfig, normalize_latex  # takes a second

    if gold.strip() in _LETTERS and _same_letter(answer, gold):
        return True
    answer, gold = without_ending(answer), without_ending(gold)
    texts = [normalize_latex(text, NormalizationConfig()) for text in (answer, gold)]
    same_text = texts[0].replace(" ", "") == texts[1].replace(" ", "")
    if same_text or all(map(_LITERAL.fullmatch, texts)):
        return same_text
    return _same_value(answer, gold)


def without_ending(text: str) -> str:
    """Remove a percent sign after a plain number, and points and backslashes at the end."""
    percent = _PERCENT.fullmatch(text)
    return (percent[1] if percent else text).rstrip(".\\")


def is_delimited(text: str) -> bool:
    """Return whether a text contains a formula between delimiters, or a box."""
    return r"\boxed{" in text or any(
        0 <= text.find(begin) < text.rfind(end) for begin, end in _DELIMITERS
    )


def _same_letter(answer: str, gold: str) -> bool:
    from math_verify import StringExtractionConfig, parse, verify

    be_quiet()
    settings = [StringExtractionConfig(strings=_LETTERS)]
    parsed = [parse(text, settings, parsing_timeout=None) for text in (gold, answer)]
    return verify(*parsed, timeout_seconds=None)


def _same_value(answer: str, gold: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    be_quiet()
    formulas = [text if is_delimited(text) else f"${text}$" for text in (gold, answer)]
    settings = [LatexExtractionConfig()]
    parsed = [parse(text, settings, parsing_timeout=None) for text in formulas]
    return verify(*parsed, numeric_precision=_DIGITS, timeout_seconds=None)
