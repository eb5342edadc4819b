"""docs/evaluation.md: its tables are those of the records, and its task works as printed."""

import re

import pytest

from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import suites
from rlp.evaluation.benchmarks.files import load
from rlp.evaluation.benchmarks.grading import ResponseGrader
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
HEADING = "A task of your own: "
TASKS = benchmarks.BENCHMARKS.values()
POSED = (*TASKS, benchmarks.find("reasoning_gym:chain_sum"))


def cells(heading):
    """Return the cells of the table of a section, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[1:]
    return [row.split(" | ") for row in rows]


def test_the_table_of_tasks():
    expected = [
        [f"`{x.name}`", x.title, f"{x.size:,}", x.metric, f"`{x.file}`", x.source] for x in TASKS
    ]
    assert cells("Tasks") == expected


def test_every_prompt_is_in_its_table_with_its_date_and_kind():
    documented = {}
    for names, date, kind, shots, _ in cells("Prompts"):
        for name in re.findall(r"`([a-z][\w-]*)`", names):
            documented[name] = (date, kind, shots)
            if "and the same with 10" in names:
                documented[name.replace("-4", "-10")] = (date, kind, shots)
    prompts = {prompt.name: (prompt, "") for task in POSED for prompt in task.prompts}
    prompts |= {x.context.name: (x.context, "options") for task in TASKS for x in task.options}
    assert set(documented) == set(prompts)
    for name, (prompt, kind) in prompts.items():
        date, documented_kind, shots = documented[name]
        assert documented_kind == (kind or ("chat" if prompt.chat else "text"))
        assert prompt.date in date
        assert str(prompt.shots) in shots


def test_a_prompt_has_the_same_text_in_every_task():
    for name in {prompt.name for task in POSED for prompt in task.prompts}:
        prompts = [x for task in POSED for x in task.prompts if x.name == name]
        assert len({(x.text, x.example, x.shots, x.stop) for x in prompts}) == 1


def test_the_table_of_extractors():
    every = {x.name: x for task in POSED for x in task.extractors}
    documented = [
        [name.strip("`"), date, meaning.replace("`", "")]
        for name, date, meaning in cells("Extractors")
    ]
    assert {tuple(row) for row in documented} == {
        (name, x.date, x.meaning) for name, x in every.items()
    }


def test_every_suite_is_named():
    section = PAGE.split("\n## Tasks\n")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in suites.SUITES)


@pytest.fixture(scope="module")
def code():
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return block


def test_the_task_of_the_page_has_the_lines_of_its_heading(code):
    first, *rest = code.splitlines()
    assert first == "# capitals.py"
    lines = sum(bool(line.strip()) for line in rest)
    assert f"## {HEADING}{lines} lines\n" in PAGE
    assert lines <= 40


def test_the_task_of_the_page_reads_poses_and_grades(code, tmp_path):
    task = tmp_path / "capitals.py"
    task.write_text(code)
    (tmp_path / "data" / "capitals").mkdir(parents=True)
    file = tmp_path / "data" / "capitals" / "test.csv"
    file.write_text("country,capital\nFrance,Paris\nPeru,Lima\nKenya,Nairobi\n")
    benchmark = benchmarks.find(str(task))
    problems = load(benchmark, tmp_path / "data")
    assert (problems.part, [x.gold for x in problems.problems]) == (
        "",
        ["Paris", "Lima", "Nairobi"],
    )
    question = "What is the capital of Peru?"
    assert benchmark.prompt().fill(problems.problems[1]).startswith(question)
    assert benchmark.prompt(base=True).fill(problems.problems[1]) == f"{question}\nCapital:"
    grader = ResponseGrader(f"{task}:CAPITALS", time_limit=60, workers=1)
    responses = ["Well.\nCapital: paris", "Lima", "Capital: Mombasa"]
    verdicts = grader.grade(problems.problems, responses)
    assert [verdict.correct for verdict in verdicts] == [True, False, False]
    assert [verdict.complies for verdict in verdicts] == [True, False, True]
    assert [verdict.answer for verdict in verdicts] == ["paris", None, "Mombasa"]
