"""Verifiers: the extracted answer of a response, and whether it equals the gold answer."""

import signal

import pytest

from rlp.answers import verifiers
from rlp.answers.verifiers import VERIFIERS, Verifier, agreed, checked, find
from rlp.runtime.errors import UserError

HALF = ("1/2", r"\frac12", r"\frac{1}{2}", "0.5", "0.50", r"\tfrac{2}{4}", "50/100")


@pytest.mark.parametrize("answer", HALF)
def test_math_recognizes_a_value_however_it_is_written(answer):
    for written in HALF:
        for response in (f"so \\boxed{{{written}}}", f"$x = {written}$", written):
            assert checked("math", response, answer)[1], response
    for wrong in ("2", r"\frac13", "-1/2", "0.6", "x"):
        assert not checked("math", f"so \\boxed{{{wrong}}}", answer)[1]


@pytest.mark.parametrize(
    ("response", "right", "wrong"),
    [
        (r"\boxed{\{3, 1, 2\}}", (r"\{1,2,3\}",), (r"\{1,2\}", "6")),
        (r"\boxed{1, 2}", (r"\{2,1\}",), ("12",)),
        (r"\boxed{[0, 1)}", ("[0,1)",), ("(0,1)", "[0,1]", r"\{0,1\}")),
        (r"\boxed{(-\infty, 3)}", (r"(-\infty,3)",), (r"(-\infty,3]",)),
        (r"\boxed{(1, 2)}", ("(1,2)",), ("(2,1)",)),
        (r"\boxed{1,000}", ("1000",), ("1",)),
        (r"\boxed{2\sqrt2}", (r"\sqrt{8}",), ("2",)),
        (r"\boxed{x + 1}", ("1 + x",), ("x - 1",)),
        (r"\boxed{x = 3}", ("3",), ("4",)),
        (r"\boxed{3\text{ cm}}", ("3",), ("30",)),
        (r"\boxed{\text{east}}", ("east",), ("west",)),
        (r"\boxed{18}", ("18.0", "$18"), ("1", "8")),
    ],
)
def test_math_recognizes_sets_intervals_tuples_and_terms(response, right, wrong):
    assert all(checked("math", response, answer)[1] for answer in right)
    assert not any(checked("math", response, answer)[1] for answer in wrong)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"$\boxed{1}$ and $\boxed{2}$", "2"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{2}, and not 5", "2"),
        (r"4, since $2^2 = 4$; \boxed{2}", "2"),
        ("first 1, then the answer is 2", "2"),
        ("So it is 1/2.", "1/2"),
        ("The total is $18.", "18"),
        ("#### 72", "72"),
        ("-3", "-3"),
    ],
)
def test_math_takes_the_last_box_else_the_last_formula_or_number(response, answer):
    found, right = checked("math", response, answer)
    assert right
    assert found is not None
    assert agreed("math", response, answer)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "  \n",
        "no idea",
        "I do not know.",
        r"\boxed{}",
        r"\boxed{12",
        "The answer is",
        r"The answer is \boxed{12",
        "**Answer:**",
        "------",
    ],
)
def test_math_extracts_nothing_without_an_answer(response):
    assert checked("math", response, "0") == (None, False)


def test_math_sets_no_alarm():
    """math-verify's own time limit is a signal, which only a main thread may set."""
    before = signal.getsignal(signal.SIGALRM)
    assert checked("math", r"\boxed{2}", "2")[1]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.alarm(0) == 0


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(B)", "B"),
        (r"I think A, no: \boxed{C}", "C"),
        (r"\boxed{A} … \boxed{\text{(D)}}", "D"),
        ("The answer is D, and A is wrong", "D"),
        ("Answer: (B). So not C", "B"),
        ("**Answer:** C", "C"),
        ("The answer is A. Wait. The answer is **B**", "B"),
        ("A or B? B or C? C", "C"),
        ("B", "B"),
        ("Both DNA and K", None),
        ("b", "B"),
        ("", None),
    ],
)
def test_choice_is_the_letter_that_is_chosen_last(response, letter):
    assert verifiers.choice(response) == letter
    assert checked("choice", response, "B") == (letter, letter == "B")


def test_exact_is_the_whole_text_without_the_space_around_it():
    assert checked("exact", " north .\n", "north .") == ("north .", True)
    assert checked("exact", "north  .", "north .") == ("north  .", False)
    assert checked("exact", "North .", "north .")[1] is False
    assert checked("exact", " \n", "north .") == (None, False)


def test_a_users_verifier_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "my_verifiers.py").write_text(
        "from rlp.answers.verifiers import Verifier\n"
        "LENGTH = Verifier(lambda response: str(len(response)), lambda a, b: int(a) == int(b))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert checked("my_verifiers:LENGTH", "four", "04") == ("4", True)
    assert agreed("my_verifiers:LENGTH", "four", "five") is True
    assert agreed("my_verifiers:LENGTH", "four", "seven") is False
    assert all(find(name) is verifier for name, verifier in VERIFIERS.items())
    assert all(isinstance(verifier, Verifier) for verifier in VERIFIERS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "maths",
            "data.problems.verifier='maths' is unknown; use one of math, choice, exact,",
        ),
        ("rlp.nowhere:X", "cannot be imported: No module named 'rlp.nowhere'"),
        (
            "rlp.answers.verifiers:NONE",
            "cannot be imported: module 'rlp.answers.verifiers' has no attribute",
        ),
        ("rlp.answers.verifiers:VERIFIERS", "is not a rlp.answers.verifiers.Verifier"),
        ("rlp.answers.verifiers:find", "cannot be called with .response, answer."),
    ],
)
def test_what_is_not_a_verifier_is_refused(name, message):
    with pytest.raises(UserError, match=message) as caught:
        find(name)
    assert "\n" not in str(caught.value)
    verifiers.prepare(name)  # no error: the check itself raises it


@pytest.mark.parametrize(
    "answer", ["b) Paris", "B. Paris", "(b) paris", r"\text{B}", "\uff22", "Paris"]
)
def test_a_gold_letter_may_have_the_text_of_its_option(answer):
    assert verifiers.gold_letter(answer, ["Rome", "Paris"]) == "B"


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        ("x", ["x", "x"], "'x' is ambiguous: it is the text of the options A and B"),
        ("B", ["B", "A"], "may be the letter of an option or the text of another one"),
        ("E", ["x", "y"], "'E' is not one of the options A to B"),
        ("B. Rome", ["Rome", "Paris"], "is not a letter from A to B"),
    ],
)
def test_a_gold_letter_that_may_be_two_options_or_none_is_refused(answer, options, message):
    with pytest.raises(UserError, match=message):
        verifiers.gold_letter(answer, options)
