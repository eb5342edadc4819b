"""Strict equality of answers: which pairs are equal, by the rules of NeMo-Skills."""

import itertools
import re

import pytest

from rlp.answers.strict_equality import is_delimited, strictly_equal, without_ending

EQUAL = [  # answer, gold
    ("18", "18"),
    ("18.", "18"),
    ("18.0", "18"),
    ("27", "27.0"),
    ("1,080", "1080"),
    (r"\$1080", "1080"),
    ("25%", "25"),
    (r"25\%", "25%"),
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac{1}{2}"),
    (r"-\frac{3}{4}", r"\frac{-3}{4}"),
    ("-3/4", r"-\frac34"),
    (r"\dfrac{2}{3}", r"\frac{2}{3}"),
    ("[2,5)", "[2, 5)"),
    (r"(-\infty, 3]", r"(-\infty,3]"),
    ("(3, 4)", r"\left( 3, 4 \right)"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"1.2 \times 10^{-3}", "0.0012"),
    (r"3\sqrt{2}", r"\sqrt{18}"),
    ("x + 1", "1+x"),
    ("07:30", "07:30"),
    ("7:30", "07:30"),
    ("(B)", "B"),
    ("B and C", "B"),  # as math-verify reads letters
    ("1,2", "1, 2"),
    (r"12 \text{ cm}", "12"),
]
DIFFERENT = [
    ("19", "18"),
    ("027", "27"),  # digits alone are compared as texts
    ("Evelyn", "Angela"),
    ("evelyn", "Evelyn"),
    ("b", "B"),
    ("1.2e-3", "0.0012"),
    (r"-\frac{3}{4}", r"\frac{3}{4}"),
    ("[2,5]", "[2,5)"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("C", "B"),
    ("0.33", r"\frac{1}{3}"),
    ("the answer is 18", "18"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers(answer, gold):
    assert strictly_equal(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers(answer, gold):
    assert not strictly_equal(answer, gold)


@pytest.mark.parametrize("gold", sorted({gold for _, gold in EQUAL + DIFFERENT}))
def test_every_gold_answer_equals_itself(gold):
    assert strictly_equal(gold, gold)


def short_texts(characters):
    return ["".join(x) for n in range(7) for x in itertools.product(characters, repeat=n)]


def test_short_texts_are_read_as_the_patterns_of_the_rules_say():
    """These patterns are shorter than the code, but take quadratic time."""
    percent = re.compile(r"(\d+\.?\d*)(?:\\%|%)")
    for text in short_texts(r"1.\%"):
        match = percent.fullmatch(text)
        assert without_ending(text) == (match[1] if match else text).rstrip(".\\")
    formula = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]|\\boxed\{", re.DOTALL)
    for text in [*short_texts("$\n1"), *short_texts(r"\()["), *short_texts(r"\[]("), r"\boxed{"]:
        assert is_delimited(text) == bool(formula.search(text))
