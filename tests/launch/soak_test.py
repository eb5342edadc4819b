"""The soak test with a few kills, and that it detects differences."""

import subprocess
import sys

import pytest

from tests.soak.cases import Disturbance, Plan
from tests.soak.compare import differences
from tests.soak.kinds import KINDS
from tests.soak.table import Table
from tests.soak.ways import WAYS
from tests.support.paths import ROOT

LEFT = {
    "./arrays": {"['kernel']": ("float32", (2,), b"01234567")},
    "./metrics": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}],
    "files": {"run/config.json": True},
}
CHANGED = {
    "a bit": ({"./arrays": {"['kernel']": ("float32", (2,), b"01234566")}}, "kernel.*other bits"),
    "a figure": ({"./metrics": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}]}, "loss: 2.0"),
    "a step twice": ({"./metrics": [LEFT["./metrics"][0], *LEFT["./metrics"]]}, "metrics"),
    "a file": ({"files": {"run/config.json": True, "run/.x": True}}, "files: run/.x is new"),
    "no file": ({"files": {}}, "files: run/config.json is missing"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_it_sees(case):
    changes, said = CHANGED[case]
    assert differences(LEFT, LEFT) == []
    with pytest.raises(AssertionError, match=said):
        assert not (found := differences(LEFT | changes, LEFT)), found


def test_a_case_is_a_function_of_seed_and_number():
    draw = lambda seed, number: Plan.drawn(seed, number, list(KINDS), list(WAYS))
    assert draw(0, 7) == draw(0, 7)
    drawn = [draw(seed, number) for seed in range(2) for number in range(100)]
    assert {plan.kind for plan in drawn} == set(KINDS)
    assert {way for plan in drawn for way in plan.ways} == set(WAYS)


def test_what_went_wrong_is_counted_and_can_be_repeated():
    plan = Plan(3, 0, "text", ["SIGKILL"])
    done = lambda *faults: [
        Disturbance("text", "SIGKILL", 1.0, "step 4", "killed", -9, "", list(faults), "")
    ]
    table = Table()
    table.add(plan, done(), [])
    assert table.failed == []
    table.add(plan, done("left a process"), [])
    table.add(plan, done(), ["other bits"])
    assert table.failed == [3, 3]
    assert table.tried == 3
    assert "| SIGKILL | 3 | 3 step | 3 killed | 1 | 2 of 3 |" in str(table)


@pytest.mark.slow
def test_runs_that_are_disturbed_at_random_end_like_undisturbed_ones(tmp_path):
    # This seed kills an experiment with SIGKILL and then damages a checkpoint.
    words = ["--kills=2", "--seed=38", "--kind=experiment"]
    words.append(f"--folder={tmp_path / 'soak'}")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words],
        cwd=ROOT, timeout=800, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "2 disturbances" in ran.stdout
