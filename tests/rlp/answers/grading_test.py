"""Grading: where the answers of responses are, the majority of a group, and that a check always
ends, whatever a verifier does."""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time

import pytest

from rlp.answers import limited_checks, verifiers
from rlp.answers.grading import Grader
from rlp.answers.verifiers import Gold, answer_region, stated_confidence
from rlp.runtime import limited_process
from rlp.runtime.errors import UserError

CLOSE = "</think>"
# One worker each, since starting a process takes a second or two.
MATH = Grader("math", time_limit=60, workers=1, close=CLOSE)
LIMIT = 3  # seconds; checks take almost none, but a machine may be busy
OBEDIENT = Grader("tests.support.bad_verifiers:OBEDIENT", time_limit=LIMIT, workers=1, close=CLOSE)


def grade_all(grader, *arguments):
    with grader.step() as step_time:
        return grader.grade_all(*arguments, step_time)


def answers(grades):
    return [grade.answer for grade in grades]


def test_only_what_follows_the_last_closing_tag_is_an_answer():
    responses = [
        r"\boxed{1}</think>\boxed{2}",
        r"\boxed{2}</think>\boxed{3}</think> nothing",
        r"<answer>2</answer></think><answer>3</answer>",
        r"<confidence>0.5</confidence></think>2",
        r"\boxed{2} and no tag",
    ]
    grades = MATH.grade(responses, "2")
    assert answers(grades) == ["2", None, "3", "2", "2"]
    assert [grade.correct for grade in grades] == [True, False, False, True, True]
    assert all(grade.confidence is None and not grade.failed for grade in grades)


UNFINISHED = [  # response, whether it has an answer if it begins inside a thought, and otherwise
    ("The total is 2. But wait, let me", False, True),
    ("The total is 3.</think> So it is 2.", True, True),
    ("</think>2", True, True),
    ("2</think>", False, False),
    ("<think>2", False, False),
    ("<think>3</think>2", True, True),
    ("2 <think> or 3", False, False),
    ("3</think>2<think>let me check", False, False),
    ("<think>a</think><think>b</think> 2", True, True),
    ("<answer>2</answer>", False, True),
    ("3 <answer>2</answer> </think> 2", True, True),
    ("<answer>3</answer> </think> <answer>2</answer> <confidence>0.5</confidence>", True, True),
    ("<answer>2</answer> <confidence>0.9</confidence>", False, True),
]


@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_that_does_not_end_has_no_answer(opened):
    """It is neither correct nor counted in the majority nor shown."""
    grader = dataclasses.replace(MATH, open="<think>", opened=opened)
    texts = [text for text, _, _ in UNFINISHED]
    has = [inside if opened else outside for _, inside, outside in UNFINISHED]
    grades = grader.grade(texts, "2")
    assert [grade.correct for grade in grades] == has
    assert [grade.agrees for grade in grades] == has
    assert answers(grades) == ["2" if answered else None for answered in has]
    assert not any(grade.failed for grade in grades)
    assert grades[-2].confidence == 0.5
    assert grades[-1].confidence == (None if opened else 0.9)


def test_majorities_compare_answers_as_they_are_judged():
    """By value and unit, whatever their texts are."""
    responses = ["**5 m**", "5 cm", "The answer is 500 cm.", r"\boxed{5\text{ m}}", "5 cm"]
    grades = MATH.grade(responses, "5 m")
    assert [grade.agrees for grade in grades] == [True, False, True, True, False]
    assert [grade.correct for grade in grades] == [True, False, True, True, False]
    letters = ["b", "**B**", "The answer is C. B is wrong.", "I think (C)", "(b) because I said so"]
    choices = dataclasses.replace(MATH, verifier="choice").grade(letters, Gold("B", 4))
    assert [grade.agrees for grade in choices] == [True, True, False, False, True]
    assert answers(choices) == ["B", "B", "C", "C", "B"]


@pytest.mark.parametrize(
    ("response", "place"),
    [
        ("so <answer>7</answer> (of 9)", "7"),
        ("<answer>1</answer> no, <answer>\n7\n</answer>", "\n7\n"),
        ("it is 7 <confidence>0.9</confidence>", "it is 7 "),
        ("<answer>7</answer><confidence>80%</confidence>", "7"),
        ("<answer>7", "<answer>7"),
        ("7</answer>", "7</answer>"),
        ("</answer><answer>7", "</answer><answer>7"),
        ("<answer>1<answer>7</answer>", "7"),
        ("<confidence>very</confidence>", "<confidence>very</confidence>"),
        ("7", "7"),
    ],
)
def test_the_answer_is_between_its_tags_or_anywhere(response, place):
    assert answer_region(response) == place


@pytest.mark.parametrize(
    ("stated", "share"),
    [
        ("80%", 0.8), ("80 %", 0.8), ("0.8", 0.8), (".8", 0.8), (" 1 ", 1), ("0", 0), ("100%", 1),
        ("1.7", None), ("101%", None), ("80", None), ("-0.5", None), ("high", None), ("", None),
    ],
)  # fmt: skip
def test_a_confidence_is_a_share_or_none(stated, share):
    assert stated_confidence(f"7 <confidence>{stated}</confidence> .") == share
    last = f"<confidence>0.1</confidence><confidence>{stated}</confidence>"
    if share is not None:
        assert stated_confidence(last) == share
    assert stated_confidence(f"<confidence>{stated}") is None


def test_a_group_agrees_with_the_answer_that_most_give_however_they_write_it():
    box = lambda *texts: [rf"\boxed{{{text}}}" if text else "none" for text in texts]
    groups = {
        "most": (box("x + 1", "3", "1 + x", "x + 1"), [1, 0, 1, 1]),
        "most, each written otherwise": (
            box("3", "x + 1", "3", "1 + x", "x + 2 - 1"),
            [0, 1, 0, 1, 1],
        ),
        "a tie goes to the first": (box("4", "3", "3.0", r"\frac82"), [1, 0, 0, 1]),
        "all differ": (box("1", "2", "3"), [1, 0, 0]),
        "no answer agrees with nothing": (box("", "2", ""), [0, 1, 0]),
        "a group without an answer": (box("", ""), [0, 0]),
        "an empty group": ([], []),
    }
    found = grade_all(MATH, [texts for texts, _ in groups.values()], ["3"] * len(groups))
    for (name, (_, expected)), grades in zip(groups.items(), found, strict=True):
        assert [grade.agrees for grade in grades] == list(map(bool, expected)), name
    assert [grade.correct for grade in found[1]] == [True, False, True, False, False]


def test_a_check_that_hangs_or_dies_is_ended_and_harms_no_other():
    """It ends after its time, counts as without an answer, and the other grades are unaffected."""
    groups = [["a", "hang", "b"], ["exit", "b</think>b", "b <confidence>1</confidence>"]]
    begin = time.monotonic()
    found = grade_all(OBEDIENT, groups, ["a", "b"])
    seconds = time.monotonic() - begin
    assert LIMIT <= seconds < 20 * LIMIT  # a check without a limit takes ten minutes
    assert [answers(grades) for grades in found] == [["a", None, "b"], [None, "b", "b"]]
    assert [[grade.failed for grade in grades] for grades in found] == [[0, 1, 0], [1, 0, 0]]
    assert [[grade.correct for grade in grades] for grades in found] == [[1, 0, 0], [0, 1, 1]]
    assert [[grade.agrees for grade in grades] for grades in found] == [[1, 0, 0], [0, 1, 1]]
    assert found[1][2].confidence == 1


def test_a_comparison_that_hangs_is_no_agreement():
    quick = Grader(OBEDIENT.verifier, 1.5, 1, CLOSE)
    grades = quick.grade(["left", "right", "a"], "a")
    assert [grade.agrees for grade in grades] == [True, False, False]
    assert [grade.failed for grade in grades] == [False, False, False]
    assert [grade.correct for grade in grades] == [False, False, True]


def test_a_process_that_is_killed_between_checks_is_replaced():
    """As the system does when memory is short; the pool of processes then drops all checks."""
    OBEDIENT.grade(["a"], "a")  # start its process, so that later processes belong to `two`
    others = set(multiprocessing.active_children())
    two = Grader(OBEDIENT.verifier, LIMIT, 2, CLOSE)
    (grade,) = two.grade(["pid"], "a")
    processes = set(multiprocessing.active_children()) - others
    assert len(processes) == 2
    os.kill(int(grade.answer), signal.SIGKILL)
    time.sleep(1)  # the pool notices
    assert answers(two.grade(["a", "hang", "b"], "a")) == ["a", None, "b"]
    assert not any(process.is_alive() for process in processes)  # the other process has ended too
    (grade,) = OBEDIENT.grade(["pid"], "a")
    os.kill(int(grade.answer), signal.SIGKILL)  # the pool does not notice yet
    assert answers(OBEDIENT.grade(["a", "b"], "a")) == ["a", "b"]


def test_a_pool_that_breaks_down_before_a_check_is_registered_is_replaced(monkeypatch):
    """Pebble aborts registered checks, but loses a check that it is about to register."""
    import pebble.pool.process

    (grade,) = OBEDIENT.grade(["pid"], "a")
    schedule = pebble.pool.process.PoolManager.schedule

    def late(self, task):
        monkeypatch.undo()
        time.sleep(0.5)  # the pool notices the death and stops
        schedule(self, task)

    monkeypatch.setattr(pebble.pool.process.PoolManager, "schedule", late)
    os.kill(int(grade.answer), signal.SIGKILL)
    assert answers(OBEDIENT.grade(["a", "b"], "a")) == ["a", "b"]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced on Linux alone")
def test_a_check_that_takes_too_much_memory_fails_and_its_process_is_replaced():
    patient = dataclasses.replace(OBEDIENT, time_limit=60)
    small = dataclasses.replace(patient, memory_limit=0.25)
    grades = small.grade(["pid", "eat", "pid", "forget"], "a")
    assert [grade.failed for grade in grades] == [False, True, False, False]
    assert grades[0].answer != grades[2].answer
    assert grades[3].answer == "forgot"
    assert patient.grade(["eat"], "a")[0].answer == str(2**29)  # without a limit


def test_memory_that_the_system_does_not_limit_is_named(monkeypatch, caplog):
    monkeypatch.setattr(limited_process.sys, "platform", "darwin")
    with caplog.at_level("WARNING"):
        limited_checks._pool((1, verifiers.prepare, OBEDIENT.verifier, 0.5))
    assert "memory_limit=0.5 GiB: this system cannot limit" in caplog.text


def test_what_is_left_when_the_time_of_a_step_is_over_counts_as_failed(caplog):
    """In every call of the step, with one log line for all of them; the next step has new time."""
    patient = dataclasses.replace(OBEDIENT, time_limit=60, step_time_limit=2.0)
    OBEDIENT.grade(["a"], "a")  # start the processes
    begin = time.monotonic()
    with patient.step() as step_time:
        first = patient.grade_all([["a", "hang", "b"]], ["a"], step_time)
        second = patient.grade_all([["a"]], ["a"], step_time)
    assert time.monotonic() - begin < 30
    assert [[grade.failed for grade in group] for group in first + second] == [[0, 1, 1], [1]]
    assert [[grade.correct for grade in group] for group in first + second] == [[1, 0, 0], [0]]
    lines = [record.message for record in caplog.records if "step_time_limit=2" in record.message]
    assert [line.partition(": ")[2].partition(" ")[0] for line in lines] == ["3"]
    assert answers(OBEDIENT.grade(["a", "b"], "a")) == ["a", "b"]


@pytest.mark.parametrize("number", limited_process.GROUP_SIGNALS)
def test_signals_to_the_process_group_are_left_to_the_run(number):
    (before,) = OBEDIENT.grade(["pid"], "a")
    os.kill(int(before.answer), number)
    (after,) = OBEDIENT.grade(["pid"], "a")
    assert after.answer == before.answer


def test_a_process_ignores_signals_while_it_starts():
    """Its imports take seconds, before our signal handlers are set."""
    process = limited_process.Context().Process(target=time.sleep, args=(60,))
    process.start()
    for number in limited_process.GROUP_SIGNALS:
        os.kill(process.pid, number)
    process.join(1)
    assert process.is_alive()
    process.kill()
    process.join()


def test_a_check_whose_run_was_killed_ends_itself():
    process = limited_process.Context().Process(
        target=limited_process.call, args=(0.5, time.sleep, 60)
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGALRM


BOMBS = (
    "(((5!)!)!)!", "9^9^9^9", "9^{9^{9^{9}}}", r"\binom{10^9}{10^8}", "2^{10^{12}}", "(10^{18})!",
    "7" * 10**6, "1." + "7" * 10**6, "{" * 10**5 + "}" * 10**5, "(" * 10**5 + "1" + ")" * 10**5,
    r"\sqrt{" * 3000 + "2" + "}" * 3000, r"\frac{1}{" * 2000 + "2" + "}" * 2000,
    r"\begin{pmatrix}" + "1&" * 5000 + r"1\end{pmatrix}", "x" + "^x" * 5000, "1" + "+1" * 5000,
    r"\left" * 5000, r"\int " * 500 + "x", r"\sum_{n=1}^{10^{12}} n^n", "2**(3**(4**(5**6)))",
    r"\prod_{i=1}^{10^9} i", r"\det\begin{pmatrix}" + (r"a&b&c&d\\" * 500) + r"\end{pmatrix}",
)  # fmt: skip


@pytest.mark.slow
def test_no_formula_of_a_model_ends_the_run():
    """Each is graded or fails its check within the limits; later checks are unaffected."""
    grader = dataclasses.replace(MATH, time_limit=1.0, memory_limit=1.0)
    for bomb in BOMBS:
        grades = grader.grade([rf"\boxed{{{bomb}}}", f"${bomb}$"], "2")
        assert not any(grade.correct for grade in grades), bomb[:40]
    assert grader.grade([r"\boxed{2}"], "2")[0].correct


def test_imports_of_a_process_are_not_part_of_the_time_of_a_check():
    slow = Grader("tests.support.slow_verifiers:SLOW_TO_COME", 2, 1, CLOSE)
    assert slow.grade(["a"], "a")[0].correct


def test_an_error_in_a_built_in_verifier_is_a_failed_check_and_does_not_end_the_run(caplog):
    """Whatever error a library raises; here, for an answer that is not a text."""
    grades = grade_all(MATH, [["2", r"\boxed{2}"], ["2"]], [None, "2"])
    assert [[grade.failed for grade in group] for group in grades] == [[True, True], [False]]
    assert [[grade.correct for grade in group] for group in grades] == [[False, False], [True]]
    assert "a check failed: " in caplog.text


def test_a_verifier_that_raises_is_the_users_error_and_the_next_check_works():
    with pytest.raises(UserError, match=r"OBEDIENT' raised ValueError: two lines$") as caught:
        OBEDIENT.grade(["a", "raise", *["b"] * 50], "a")
    assert "\n" not in str(caught.value)
    assert OBEDIENT.grade(["a"], "a")[0].correct
    nowhere = Grader("tests.support.bad_verifiers:NONE", LIMIT, 1, CLOSE)
    with pytest.raises(UserError, match=r"NONE' cannot be imported"):
        nowhere.grade(["a"], "a")


NUMBER = Grader("tests.support.bad_verifiers:number", LIMIT, 1, CLOSE, open="<think>")


def test_a_verifier_may_return_a_number():
    """A response with at least 1 is correct; one without an answer has 0 and is not verified."""
    responses = ["ab", "abcd", "a thought</think> abc ", "true", "minus", "<think> never closed"]
    grades = NUMBER.grade(responses, "abcd")
    assert [grade.reward for grade in grades] == [0.5, 1.0, 0.75, 1.0, -0.5, 0.0]
    assert [grade.correct for grade in grades] == [False, True, False, True, False, False]
    assert answers(grades)[:3] == ["ab", "abcd", "abc"]
    assert answers(grades)[-1] is None


def test_without_a_number_the_reward_is_whether_the_answer_is_correct():
    assert [grade.reward for grade in MATH.grade(["2", "3", "none"], "2")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("order", ["nan", "text", "none"])
def test_a_verifier_that_does_not_return_a_finite_number_is_refused_by_name(order):
    with pytest.raises(UserError, match=r"bad_verifiers:number' returned .*; return a finite"):
        NUMBER.grade([order], "abcd")


def test_a_function_is_called_with_the_gold_answers_before_a_run():
    assert NUMBER.why_unusable([Gold("abcd"), Gold("minus")]) == ["", ""]
    with pytest.raises(UserError, match="returned nan"):
        NUMBER.why_unusable([Gold("abcd"), Gold("nan")])


def test_a_function_that_does_not_take_response_and_answer_is_refused():
    with pytest.raises(UserError, match=r"of_one' cannot be called with \(response, answer\)"):
        verifiers.find("tests.support.bad_verifiers:of_one")
