"""Strict extractors: what they read, and that they read nothing else."""

import re

import pytest

from rlp.evaluation.benchmarks import extractors
from rlp.evaluation.benchmarks.extractors import BOXED, CHOICES, FINAL_ANSWER, HASHES

LETTER = {extractor.name: extractor for extractor in CHOICES}


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So \boxed{18}.", "18"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{a {nested {box}}}}", r"\text{a {nested {box}}}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed{ 27.0 }", " 27.0 "),
        (r"\boxed{07:30}", "07:30"),
        (r"\boxed{50\%}", r"50\%"),
        (r"\boxed{[2,5)}", "[2,5)"),
        (r"\boxed{-\frac{3}{4}\text{ cm}}", r"-\frac{3}{4}\text{ cm}"),
        (r"\boxed{1.5 \times 10^{-3}}", r"1.5 \times 10^{-3}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{12", None),
        (r"\boxed{1} but \boxed{2", None),  # no fallback to an earlier box
        (r"\boxed 5", None),
        (r"\boxed {5}", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\fbox{5}", None),
        ("The answer is 5.", None),
        ("$5$", None),
        ("", None),
    ],
)
def test_the_last_box_is_the_answer_of_mathematics(response, answer):
    assert BOXED.answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("We add.\nThe final answer is 12", "12"),
        ("The final answer is $12$.\n", "$12$."),
        ("The final answer is 1. The final answer is 2", "1. The final answer is 2"),
        ("The final answer is 12\nI hope it is correct.", None),
        ("The final answer is ", None),
        ("the final answer is 12", None),
    ],
)
def test_the_final_answer_is_in_the_last_line(response, answer):
    """As the pattern of NeMo-Skills says, here in linear time."""
    found = re.findall(r"The final answer is (.+)$", response)
    assert (found[-1] if found else None) == FINAL_ANSWER.answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [("So\n#### 1,080.", "1080"), ("#### -3\n#### 4", "-3"), ("####5", None), ("5", None)],
)
def test_a_number_after_hashes(response, answer):
    assert HASHES.answer(response) == answer


# For each response: October 2025, November 2025, December 2025, boxed-letter, answer-line.
LETTERS = [
    (r"Answer: \boxed{B}", "B", "B", "B", "B", None),
    ("Answer: B", "B", "B", "B", None, "B"),
    ("**Answer:** b.", "B", "B", "B", None, "B"),
    ("answer :  J", "J", "J", "J", None, "J"),
    ("Answer: A\nAnswer: C", "C", "C", "C", None, "C"),
    (r"\boxed{\text{C}}", "C", "C", "C", None, None),
    (r"\boxed{C) 5}", "C", "C", "C", None, None),
    (r"\boxed{A or B}", "B", "B", "B", None, None),
    (r"\boxed{c}", "c", "c", "c", None, None),  # not equal to C
    (r"\boxed{5} Answer: D", "5", "5", "5", None, "D"),  # one character blocks the line
    (r"\boxed{12} Answer: D", "D", "D", "D", None, "D"),
    (r"\boxed{\langle H \rangle \ll \Delta E} Answer: D", "E", "E", "E", None, "D"),
    ("The final answer is (B)", None, "B", "B", None, None),
    ("\\boxed{A}\nThe final answer is B", "A", "A", "B", "A", None),
    (r"\boxed{A} or \boxed{B", None, None, None, None, None),
    ("Answer: Because", None, None, None, None, None),
    ("Answer: B2", None, None, None, None, None),
    ("The answer is B.", None, None, None, None, None),
    ("B", None, None, None, None, None),
    ("", None, None, None, None, None),
]
NAMES = ("skills-2025-10", "skills-2025-11", "skills-2025-12", "boxed-letter", "answer-line")


@pytest.mark.parametrize(("response", "letters"), [(row[0], row[1:]) for row in LETTERS])
def test_the_letter_depends_on_the_date(response, letters):
    assert tuple(LETTER[name].answer(response) for name in NAMES) == letters


def test_november_2025_is_the_default():
    assert CHOICES[0].name == "skills-2025-11"


@pytest.mark.parametrize("letter", "ABCDEFGHIJ")
def test_all_ten_options_are_read(letter):
    for name in NAMES[:3]:
        assert LETTER[name].answer(rf"Answer: \boxed{{{letter}}}") == letter
        assert LETTER[name].answer(f"Answer: {letter}") == letter


def test_names_are_unique_and_dates_are_months():
    every = [*CHOICES, *extractors.MATHEMATICS, HASHES]
    assert len({extractor.name for extractor in every}) == len(every)
    assert all(re.fullmatch(r"20\d\d-[01]\d", extractor.date) for extractor in every)
