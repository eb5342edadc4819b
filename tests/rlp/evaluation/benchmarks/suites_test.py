"""Suites: which tasks they run, and the means of their scores."""

import pytest

from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks import suites
from rlp.runtime.errors import UserError

PAPER = suites.SUITES["paper"]
# Group means of two models in table 2 of arXiv 2510.01265, and the overall score given there.
PUBLISHED = [((61.38, 34.51, 32.54), 42.81), ((65.33, 57.26, 61.37), 61.32)]


@pytest.mark.parametrize(("groups", "overall"), PUBLISHED)
def test_the_overall_score_is_that_of_the_paper(groups, overall):
    of_group = dict(zip(PAPER.overall, groups, strict=True))
    means = suites.means(PAPER, {entry.name: of_group[entry.group] for entry in PAPER.entries})
    named = {mean.name: mean for mean in means}
    assert named["overall"].value == pytest.approx(overall, abs=0.005)
    assert named["overall"].of == "3 group means"
    assert [named[group].of for group in PAPER.overall] == ["4 scores", "3 scores", "3 scores"]
    plain = (4 * groups[0] + 3 * groups[1] + 3 * groups[2]) / 10
    assert named["plain mean"].value == pytest.approx(plain)
    assert named["plain mean"].of == "10 scores"


def test_a_mean_without_one_of_its_scores_is_missing():
    scores = {entry.name: 0.5 for entry in PAPER.entries if entry.task != "amc23"}
    values = {mean.name: mean.value for mean in suites.means(PAPER, scores)}
    assert values == {
        "math": None, "science": 0.5, "science avg": 0.5, "overall": None, "plain mean": None,
    }  # fmt: skip


def test_the_paper_samples_mathematics_eight_times_and_science_greedily_and_four_times():
    runs = {(e.group, e.runs, e.temperature, e.top_p) for e in PAPER.entries}
    expected = {("math", 8, 0.7, 0.95), ("science", 1, 0.0, 1.0), ("science avg", 4, 0.7, 0.95)}
    assert runs == expected


@pytest.mark.parametrize("suite", suites.SUITES.values(), ids=lambda suite: suite.name)
def test_every_suite_has_tasks_that_exist_and_names_that_are_unique(suite):
    assert all(entry.task in benchmarks.BENCHMARKS for entry in suite.entries)
    assert len({entry.name for entry in suite.entries}) == len(suite.entries)
    assert set(suite.overall) <= {entry.group for entry in suite.entries}
    assert suite.name not in benchmarks.BENCHMARKS
    assert suites.find(suite.name) is suite


def test_aime_is_apart_from_the_overall_score():
    suite = suites.find("paper_and_aime")
    scores = {entry.name: float(entry.task.startswith("aime")) for entry in suite.entries}
    values = {mean.name: mean.value for mean in suites.means(suite, scores)}
    assert (values["overall"], values["aime"], values["plain mean"]) == (0, 1, 2 / 12)


def test_a_list_of_tasks_has_their_default_runs():
    entries = suites.find("gsm8k, amc23").entries
    assert [entry.name for entry in entries] == ["gsm8k greedy", "amc23 avg@8"]
    assert [mean.name for mean in suites.means(suites.find("gsm8k"), {})] == ["math", "plain mean"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "no tasks: name a suite"),
        (" , ", "no tasks: name a suite"),
        ("gsm8k,gsm8k", "lists a task twice"),
        ("gsm9k", "'gsm9k' is neither a suite nor a task"),
        ("gsm8k,paper", "task='paper' is unknown"),
        ("missing.py", "does not exist"),
    ],
)
def test_a_spec_that_cannot_be_used_gets_one_line(spec, problem):
    with pytest.raises(UserError, match=problem) as caught:
        suites.find(spec)
    assert "\n" not in str(caught.value)
