"""Points as local processes: order, effects of failures, signals and locks."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launch import local
from tests.support.paths import ROOT
from tests.support.points import make, run


def notes(folder):
    return (folder / "notes").read_text().split()


def test_points_run_once_each_after_what_they_need(tmp_path):
    points = make(tmp_path)
    outcome = run(tmp_path, points)
    assert outcome == local.Outcome()
    assert notes(tmp_path) == [sign + point.name for point in points for sign in "+-"]
    assert run(tmp_path, points) == local.Outcome()
    assert len(notes(tmp_path)) == 2 * len(points)  # finished ones are skipped


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_run_at_once_than_allowed(tmp_path, most):
    points = make(tmp_path, {name: [] for name in "abcdef"})
    slow = {p.name: f"mkdir -p {p.folder}; echo {{}} > {p.finished_by}; sleep 0.5" for p in points}
    run(tmp_path, points, slow, most)
    running, peak = 0, 0
    for note in notes(tmp_path):
        running += 1 if note[0] == "+" else -1
        peak = max(peak, running)
    assert peak == most


def test_a_failed_point_stops_those_that_need_it_and_no_other(tmp_path):
    points = make(tmp_path)
    bodies = {"a": "echo why >&2; exit 3", "b": "kill -KILL $$", "e": "true"}
    outcome = run(tmp_path, points, bodies)
    assert outcome.failed == {
        "a": "ended with 3",
        "b": "ended by SIGKILL",
        "c": "was not started, because a failed",
        "d": "was not started, because c failed",
        "e": "was stopped; its state is saved",  # status 0, but not finished
    }
    assert outcome.left == []
    assert "why" in (tmp_path / "logs" / "a.log").read_text()
    assert run(tmp_path, points) == local.Outcome()  # the same command resumes
    log = (tmp_path / "logs" / "a.log").read_text()
    assert log.count("$ bash") == 2
    assert "why" in log


SWEEP = """
import sys
from pathlib import Path
from tests.support.points import make, run
folder = Path(sys.argv[1])
points = make(folder)
body = "trap 'echo saved; exit 0' TERM; echo $$ >{folder}/up-{name}; while :; do sleep 0.05; done"
bodies = {p.name: body.format(folder=folder, name=p.name) for p in points}
outcome = run(folder, points, bodies, 2)
print(sorted(outcome.left), outcome.failed)
"""


@pytest.fixture
def sweep(tmp_path):
    """A sweep in a separate process whose first two points run until they are stopped."""
    words = [sys.executable, "-c", SWEEP, str(tmp_path)]
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    end = time.monotonic() + 60
    is_up = lambda name: (path := tmp_path / f"up-{name}").exists() and path.read_text().strip()
    while not (is_up("a") and is_up("b")):
        assert process.poll() is None, (tmp_path / "out").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_else_starts(tmp_path, sweep, number):
    os.killpg(sweep.pid, number)  # as a terminal does with Ctrl-C
    assert sweep.wait(30) == 0
    assert (tmp_path / "out").read_text().splitlines()[-1] == "['a', 'b', 'c', 'd', 'e'] {}"
    for name in "ab":
        assert (tmp_path / "logs" / f"{name}.log").read_text().endswith("saved\n")
    assert not (tmp_path / "up-e").exists()


def test_a_point_that_outlived_its_sweep_is_not_run_twice(tmp_path, sweep):
    sweep.kill()
    sweep.wait()
    points = make(tmp_path, {"a": [], "b": [], "e": []})
    outcome = run(tmp_path, points)
    assert outcome.failed == dict.fromkeys("ab", "is being run by another sweep")
    assert points[2].finished
    for name in "ab":
        os.kill(int((tmp_path / f"up-{name}").read_text()), signal.SIGTERM)
    end = time.monotonic() + 30
    while run(tmp_path, points).failed:
        assert time.monotonic() < end
