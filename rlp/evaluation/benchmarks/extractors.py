r"""Strict extractors: the answer of a response is only where its prompt asks for it.

Those named after NeMo-Skills follow `nemo_skills/evaluation` at the month of their date; its rules
for letters have changed several times. There is no fallback to a formula or a letter elsewhere in a
response; the verifiers of rewards (`rlp/answers/verifiers`) are more lenient. All patterns take
linear time.
"""

import re

from rlp.evaluation.benchmarks.benchmark import Extractor

_BOX = r"\boxed"
_BRACE = re.compile(r"[{}]")
_FINAL = "The final answer is "
_LONE = re.compile(r"\b[A-Z]\b")
_ANSWER = re.compile(r"Answer[*_]{0,2}\s*:[\s*_]{0,2}\s*([A-Z])(?![A-Z0-9])", re.IGNORECASE)
_HASHES = re.compile(r"#### (-?[0-9.,]+)")


def last_box(response: str) -> str | None:
    r"""Return the content of the last \boxed{…}; None if its braces are missing or not balanced.

    An earlier box is never used instead.
    """
    start = response.rfind(_BOX)
    if start < 0 or not response.startswith("{", start + len(_BOX)):
        return None
    depth = 0
    for match in _BRACE.finditer(response, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return response[start + len(_BOX) + 1 : match.start()]
    return None


def final_answer(response: str) -> str | None:
    """Return the text after "The final answer is " in the last line."""
    last = response.removesuffix("\n").rpartition("\n")[2]
    return last.partition(_FINAL)[2] or None


def after_hashes(response: str) -> str | None:
    """Return the number after the first "#### ", without commas and a point at its end."""
    match = _HASHES.search(response)
    return match[1].replace(",", "").rstrip(".") if match else None


def answer_line(response: str) -> str | None:
    """Return the letter of the last "Answer: X", in any case and emphasis, as a capital."""
    letters = _ANSWER.findall(response)
    return letters[-1].upper() if letters else None


def boxed_letter(response: str) -> str | None:
    """Return the content of the last box if it is a single capital letter."""
    found = last_box(response)
    return found if found is not None and re.fullmatch("[A-Z]", found) else None


def _letter(found: str | None, response: str) -> str | None:
    """Return the letter of an extracted text, or of the last "Answer: X" if there is none."""
    if found is not None and len(found) == 1:
        return found
    letters = _LONE.findall(found or "")
    return letters[-1] if letters else answer_line(response)


def _skills_2025_10(response: str) -> str | None:
    return _letter(last_box(response), response)


def _skills_2025_11(response: str) -> str | None:
    return _letter(last_box(response) or final_answer(response), response)


def _skills_2025_12(response: str) -> str | None:
    return _letter(final_answer(response) or last_box(response), response)


BOXED = Extractor("skills-boxed", "2025-10", last_box, r"the last \boxed{…}, or nothing")
FINAL_ANSWER = Extractor(
    "skills-final-answer", "2025-10", final_answer, 'after "The final answer is" in the last line'
)
HASHES = Extractor("harness-hashes", "2026-08", after_hashes, 'the number after the first "####"')
MATHEMATICS = (BOXED, FINAL_ANSWER)

CHOICES = (
    Extractor(
        "skills-2025-11",
        "2025-11",
        _skills_2025_11,
        r"the last lone capital in the last \boxed{…}, or else in the text after "
        '"The final answer is", or else the letter of the last "Answer: X"',
    ),
    Extractor(
        "skills-2025-10",
        "2025-10",
        _skills_2025_10,
        r'the last lone capital in the last \boxed{…}, or else the letter of the last "Answer: X"',
    ),
    Extractor(
        "skills-2025-12",
        "2025-12",
        _skills_2025_12,
        'as skills-2025-11, but with the text after "The final answer is" before the box',
    ),
    Extractor("boxed-letter", "2026-11", boxed_letter, r"a single capital in the last \boxed{…}"),
    Extractor("answer-line", "2025-06", answer_line, 'the letter of the last "Answer: X"'),
)
