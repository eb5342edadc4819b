"""Grading: verdicts on responses, whatever they contain, and tasks of the user."""

import subprocess
import sys

import pytest

from rlp.answers.verifiers import Tags
from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks.benchmark import Problem
from rlp.evaluation.benchmarks.files import load
from rlp.evaluation.benchmarks.grading import ResponseGrader, Verdict, read_response
from rlp.runtime.errors import UserCodeError, UserError
from rlp.runtime.lookup import forget_imports
from tests.support.paths import ROOT

LIMIT = 4.0  # seconds; a comparison takes almost none, but a machine may be busy
MATH = ResponseGrader("math500", time_limit=LIMIT, memory_limit=0.5, workers=1)


# None of these answers is correct, and most of them take all time or memory.
SOME = ("9^{9^{9^{9}}}", "\ud800\0\udfff", "{" * 10_000 + "1" + "}" * 10_000)
MORE = (
    "10^{10^{10}}",
    "(" * 20_000,
    r"\frac{" * 3_000 + "}" * 3_000,
    "x^2+" * 20_000 + "1",
    r"\sum_{k=1}^{10^9} k!",
    "7" * 100_000,
)


def problem(gold):
    return Problem(gold, "?", gold)


@pytest.mark.parametrize("hostile", [SOME, pytest.param(MORE, marks=pytest.mark.slow)])
def test_hostile_and_enormous_answers_cost_one_problem_each(hostile):
    box = r"\boxed{%s}"
    hostile = [box % answer for answer in hostile]
    golds = [rf"\frac{{1}}{{{n + 2}}}" for n in range(len(hostile))]
    responses = [x for y, gold in zip(hostile, golds, strict=True) for x in (y, box % gold)]
    problems = [problem(gold) for gold in golds for _ in range(2)]
    verdicts = MATH.grade(problems, responses)
    assert not any(verdict.correct for verdict in verdicts[::2])
    assert [verdict.correct for verdict in verdicts[1::2]] == [True] * len(hostile)
    assert not any(verdict.failed for verdict in verdicts[1::2])
    assert any(verdict.failed for verdict in verdicts[::2])
    for verdict in verdicts[::2]:  # an answer that cannot be compared is still an answer
        assert not verdict.failed or verdict.answer is not None


THOUGHTS = [  # response, whether it has an answer if it begins inside a thought, and otherwise
    (r"\boxed{2}", False, True),
    (r"\boxed{1}</think>\boxed{2}", True, True),
    (r"\boxed{2}</think>", False, False),
    (r"<think>\boxed{2}", False, False),
    (r"<think>\boxed{1}</think>\boxed{2}", True, True),
    (r"a</think>b</think>\boxed{2}", True, True),
]


@pytest.mark.parametrize(("response", "inside", "outside"), THOUGHTS)
def test_the_answer_is_after_the_last_thought(response, inside, outside):
    for opened, expected in ((True, inside), (False, outside)):
        tags = Tags("<think>", "</think>", opened)
        found = read_response("math500", "skills-math", "", response, tags)
        assert found == (("2", True) if expected else (None, False))


def test_an_answer_in_another_format_does_not_comply():
    """Accuracy and compliance are apart: the extractor reads more than the prompt asks for."""
    read = lambda prompt, text: read_response("mmlu", prompt, "", text, MATH.tags)
    assert read("skills-mcq-4-boxed", "So.\nAnswer: \\boxed{B}\n") == ("B", True)
    assert read("skills-mcq-4-boxed", "So.\nAnswer: B") == ("B", False)
    assert read("skills-mcq-4", "So.\nAnswer: B") == ("B", True)
    assert read("skills-mcq-4", "Answer: B\nIndeed.") == ("B", False)
    assert read("skills-mcq-4", "**Answer: B**") == ("B", False)
    assert read("skills-mcq-4", "Answer: E") == ("E", False)  # it is not an option
    assert read("skills-mcq-4", "It is B.") == (None, False)


TASK = """
import dataclasses
from pathlib import Path
from rlp.evaluation.benchmarks.benchmark import Benchmark, Extractor, Problem, Prompt

@dataclasses.dataclass
class Word:
    text: "str"

def read(path):
    return [Problem("0", "Say yes.", "yes")]

def equal(answer, gold):
    if answer == "raise":
        raise RuntimeError("two\\nlines")
    return Word(answer.lower()) == Word(gold)

YES = Benchmark(
    "yes", "Yes", "other", 1, "yes", "nowhere", "none", read,
    prompts=(Prompt("say", "2026-11", "mine", "{problem}"),),
    extractors=(Extractor("whole", "2026-11", str.strip, "all"),), equal=equal,
)
"""


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "yes.py"
    path.write_text(TASK)
    forget_imports()
    return path


def test_a_task_of_the_user_is_found_in_its_file_and_graded_in_a_process(task, caplog):
    with caplog.at_level("INFO"):
        found = benchmarks.find(str(task))
    assert f"task {task} is imported from {task}" in caplog.text
    assert benchmarks.find(f"{task}:YES") is found is benchmarks.find(str(task))
    assert found.name == "yes"
    grader = ResponseGrader(str(task), workers=1, time_limit=60)
    problems = [Problem("0", "?", "yes")] * 3
    verdicts = grader.grade(problems, [" YES", "no", "<think>"])
    assert verdicts == [
        Verdict("YES", True, True), Verdict("no", False, True), Verdict(None, False, False),
    ]  # fmt: skip
    with pytest.raises(UserCodeError, match=r"task '.*yes.py' raised RuntimeError: two lines"):
        grader.grade(problems, ["yes", "raise", "no"])


def test_an_error_in_the_reader_of_a_task_gets_one_line_and_its_frames(task, tmp_path):
    task.write_text(TASK.replace('return [Problem("0", "Say yes.", "yes")]', "return [1 / 0]"))
    (tmp_path / "yes.jsonl").touch()
    with pytest.raises(UserCodeError, match="the reader of task yes raised ZeroDiv") as caught:
        load(benchmarks.find(str(task)), tmp_path)
    assert "return [1 / 0]" in caught.value.frames


@pytest.mark.parametrize(
    ("code", "name", "problem"),
    [
        ("1 / 0", "", "cannot be imported: ZeroDivisionError: division by zero"),
        ("1 +", "", "cannot be imported: SyntaxError"),
        ("X = 1", "", "has no objects of class Benchmark"),
        ("X = 1", ":X", "is not a Benchmark of that file"),
        ("X = 1", ":Y", "is not a Benchmark of that file"),
        (TASK + "import dataclasses\nNO = dataclasses.replace(YES)", "", "has 2 objects of class"),
        (TASK + "AGAIN = YES", "", ""),
    ],
)
def test_a_file_without_one_task_gets_one_line(code, name, problem, task):
    task.write_text(code)
    if not problem:
        assert benchmarks.find(f"{task}{name}").name == "yes"
        return
    with pytest.raises(UserError, match=problem) as caught:
        benchmarks.find(f"{task}{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gsm9k", "task='gsm9k' is unknown; use one of gsm8k, math500"),
        ("nowhere/task.py", "task='nowhere/task.py' does not exist; name a Python file"),
        ("nowhere.task:X", "cannot be imported: No module named 'nowhere'"),
        ("rlp.evaluation.benchmarks:FIELD", "is not a rlp.evaluation.benchmarks.benchmark.Benchm"),
    ],
)
def test_a_task_that_does_not_exist_gets_one_line(name, problem):
    with pytest.raises(UserError, match=problem):
        benchmarks.find(name)


def test_a_task_of_a_module_is_found():
    assert benchmarks.find("rlp.evaluation.benchmarks.mmlu:BENCHMARK").name == "mmlu"


def test_tasks_are_graded_without_jax():
    """Processes that grade import this package, and start often."""
    code = "import sys; import rlp.evaluation.benchmarks.grading; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "False\n"), ran.stderr
