"""Verdicts are those of a careful human grader, however an answer is written and framed; a correct
answer that math-verify alone accepts is never rejected."""

import itertools
import logging
import time

import pytest
from math_verify import parse, verify

from rlp.answers.verifiers import Gold, agreed, checked
from tests.support.verdicts import expressions, fractions_and_sets, numbers, texts, whole_numbers
from tests.support.verdicts.choices import CHOICE

logging.getLogger("math_verify").setLevel(logging.ERROR)
TABLES = (whole_numbers, numbers, expressions, texts, fractions_and_sets)
MATH = [row for table in TABLES for row in table.ROWS]


def misjudged(verifier, gold, right, wrong):
    """Return the responses with an unexpected verdict."""
    verdicts = ((response, True) for response in right), ((response, False) for response in wrong)
    return [
        (response, checked(verifier, response, gold))
        for response, verdict in itertools.chain(*verdicts)
        if checked(verifier, response, gold)[1] != verdict
    ]


@pytest.mark.parametrize(("gold", "right", "wrong"), MATH, ids=[row[0] for row in MATH])
def test_math_gives_the_verdict_of_a_careful_grader(gold, right, wrong):
    assert misjudged("math", gold, right, wrong) == []


@pytest.mark.parametrize(("letter", "options", "right", "wrong"), CHOICE)
def test_choice_gives_the_verdict_of_a_careful_grader(letter, options, right, wrong):
    assert misjudged("choice", Gold(letter, options), right, wrong) == []


def test_the_table_is_large_and_no_text_is_in_it_as_right_and_wrong():
    for rows in (MATH, [row[::2] + row[3:] for row in CHOICE]):
        assert sum(len(right) + len(wrong) for _, right, wrong in rows) > 300
        assert not any(set(right) & set(wrong) for _, right, wrong in rows)


FRAMES = (
    "{}", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", r"\boxed{{{}}}", r"$\boxed{{{}}}$",
    r"\fbox{{{}}}",
    "The answer is ${}$.", "**Answer:** ${}$", "**${}$**", "The answer is **${}$**.",
    "The answer is {}.", "Answer: {}",
    "The answer is\n\\[\n{}\n\\]", "Answer:\n$$\n{}\n$$", "Final answer:\n\n$${}$$",
    "### Answer\n\n**${}$**",
    "答案是 ${}$。", "Antwort: ${}$", "We try 17 first. Then\n\\[{}\\]\n\n---",
    r"First $17$, but then \boxed{{{}}}", r"**\boxed{{{}}}**",
    r"The answer is $\boxed{{{}}}$, as 1+1=2.",
)  # fmt: skip
VALUES = (
    "7", "-7", "1234", r"\frac{3}{4}", r"-\frac{3}{4}", r"2\sqrt{3}", r"\frac{\pi}{6}", "x^2+1",
    "3x-2y", "(2,-5)", "[0,4)", r"\{1,4\}", "0.125", r"15\%", r"x=7", r"6-5i", r"2^{10}",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_right_in_every_frame_and_no_other_is(value):
    same = {"x=7": {"7"}, "7": {"x=7"}}.get(value, set())
    for number, frame in enumerate(FRAMES):
        assert checked("math", frame.format(value), value)[1], frame
        other = VALUES[(VALUES.index(value) + 1 + number) % len(VALUES)]
        if other not in same | {value}:
            assert not checked("math", frame.format(other), value)[1], (frame, other)


@pytest.mark.parametrize("value", VALUES)
def test_what_math_verify_alone_accepts_of_right_answers_is_accepted(value):
    """Responses that it accepts for the same answer agree with each other."""
    read = lambda text: parse(text, parsing_timeout=None)
    accepted = [
        frame.format(value)
        for frame in FRAMES
        if verify(read(f"${value}$"), read(frame.format(value)), timeout_seconds=None)
    ]
    assert len(accepted) > 5
    for response in accepted:
        assert checked("math", response, value)[1], response
        assert agreed("math", response, accepted[0]), response


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("**42**", r"\boxed{42}", True),
        ("The answer is **1,234**.", "1234", True),
        ("5 m", "500 cm", True),
        ("5 m", "5 cm", False),
        ("11:00 AM", "11:00 PM", False),
        (r"\boxed{CAB}", r"\boxed{ABC}", False),
        (r"\boxed{1,1,2}", r"\boxed{1,2}", False),
        ("1/2^99", "1/2^98", False),
        ("#### −5", "**-5**", True),
        ("no idea", "no idea", False),
    ],
)
def test_answers_agree_as_they_are_judged(one, other, same):
    assert agreed("math", one, other) == agreed("math", other, one) == same


def test_choices_agree_by_their_letters():
    assert agreed("choice", "**b**", "The answer is B because I say so.", 4)
    assert not agreed("choice", "The answer is B.", "The answer is C. B is wrong.", 4)
    assert not agreed("choice", "The answer is E.", "The answer is E.", 4)


def test_what_is_not_a_value_is_compared_without_an_error():
    """Products and quotients of sets, for which sympy's `count_ops` fails."""
    for text in (
        r"\{1,2\}\%",
        r"\{1\}\cdot\{2\}",
        r"\frac{\{1\}}{2}",
        r"\frac10",
        r"0^{-1}",
        "i^i",
    ):
        for gold in ("1", "0", r"\{1,2\}", "0.001"):
            assert not checked("math", f"\\boxed{{{text}}}", gold)[1] or gold in text, (text, gold)


HOSTILE = (
    "*", "**", "_", "`", "~~", "$", "\\", "{", "}", "(", r"\boxed{", r"\boxed", r"\text ",
    r"\text{", "answer ", "answer is ", "the answer: ", "1,234", "1.234", "1 234 ", "<answer>",
    "</answer>", "-", "<confidence>0", "A ", "I ", "B) ", "option ", "not ", "0", "#### ", "> ",
    "= ", "I choose that ",
    "½", "²", "**1**", "\n", "答案",
)  # fmt: skip


def test_the_time_to_read_a_text_is_linear_in_its_length():
    for piece in HOSTILE:
        begin = time.perf_counter()
        for prefix in ("", r"\boxed{"):
            checked("choice", prefix + piece * (50_000 // len(piece)) + "!", "B")
        assert time.perf_counter() - begin < 3, piece


def test_what_is_done_before_math_verify_reads_is_linear_too():
    from rlp.answers.verifiers.formulas import bare, is_formula
    from rlp.answers.verifiers.markup import announced, boxes, formula, tidy

    for piece in HOSTILE:
        text = piece * (20_000 // len(piece)) + "!"
        begin = time.perf_counter()
        tidied = tidy(text)
        boxes(tidied), announced(tidied), formula(tidied), is_formula(bare(tidied[:200]))
        assert time.perf_counter() - begin < 3, piece
