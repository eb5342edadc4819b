"""The lines of the plots: means over seeds, running means, downsampling."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import long_report
from rlp import report
from rlp.report import curves, page
from tests.support.paths import ROOT
from tests.support.reports import make_run, read_page


def line(values: dict[int, float]) -> curves.Line:
    steps = np.array(list(values), float)
    return curves.Line(steps, 10.0 * steps, np.array(list(values.values())))


def points(line: curves.Line) -> list[tuple[float, float, float]]:
    return list(zip(line.steps.tolist(), line.flops.tolist(), line.values.tolist(), strict=True))


def test_mean_over_seeds_is_taken_where_all_seeds_have_the_step():
    mean = curves.mean_line([line({1: 1.0, 2: 5.0, 3: 9.0}), line({2: 7.0, 3: 1.0, 4: 0.0})])
    assert points(mean) == [(2, 20, 6), (3, 30, 5)]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200), st.floats(-2, 2), st.floats(-9, 9))
@settings(deadline=None)
def test_running_mean_keeps_ends_and_straight_lines(
    values: list[float], slope: float, start: float
):
    smoothed = curves.smooth(line(dict(enumerate(values)))).values
    assert smoothed[0] == pytest.approx(values[0], abs=1e-6)
    assert smoothed[-1] == pytest.approx(values[-1], abs=1e-6)
    straight = [start + slope * n for n in range(len(values))]
    assert curves.smooth(line(dict(enumerate(straight)))).values == pytest.approx(
        straight, abs=1e-6
    )


@given(
    st.lists(st.floats(-1e3, 1e3) | st.sampled_from([-1e9, 1e9]), min_size=1, max_size=500),
    st.integers(4, 60),
)
@settings(deadline=None)
def test_a_line_drawn_in_fewer_points_keeps_its_ends_and_every_extreme(
    values: list[float], most: int
):
    whole = line(dict(enumerate(values)))
    drawn = curves.extremes(whole, most)
    assert len(drawn.values) <= most
    assert set(points(drawn)) <= set(points(whole))
    assert drawn.steps.tolist() == sorted(set(drawn.steps.tolist()))
    assert points(drawn)[0] == points(whole)[0]
    assert points(drawn)[-1] == points(whole)[-1]
    if len(values) <= most:
        assert points(drawn) == points(whole)
    # Every value is within the range of the drawn points in the two surrounding bins.
    reach = 2 * math.ceil(len(values) / ((most - 2) // 2))
    near = lambda step: drawn.values[np.abs(drawn.steps - step) < reach]
    assert all(min(near(step)) <= value <= max(near(step)) for step, value in enumerate(values))


def test_a_single_odd_step_of_a_long_run_is_on_the_page(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 3001):
            file.write(
                json.dumps({"step": step, "grad_norm": 50.0 if step == 1234 else 1.0}) + "\n"
            )
    (plot,) = json.loads(read_page(folder).data)["plots"]
    ((thin,), bold) = (plot["series"][0][name] for name in ("lines", "bold"))
    assert dict(zip(thin["step"], thin["y"], strict=True))[1234] == 50.0
    assert max(len(thin["y"]), len(bold["y"])) <= page.MOST_POINTS
    assert max(bold["y"]) < 2


@pytest.mark.slow
def test_the_report_of_100_000_steps_takes_less_than_500_mb(tmp_path: Path):
    folder = long_report.write_run(tmp_path / "run", 100_000)
    # In a small process, because the peak memory of a child includes that of its parent.
    code = f"from benchmarks import long_report as l; print(l.cost(l.Path({str(folder)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    seconds, most = eval(ran.stdout)
    assert most < 500e6
    assert seconds < 120  # 10 on an idle machine
    assert (folder / "report.html").stat().st_size < 2e6


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.integers(1, 50))
@settings(deadline=None)
def test_thinning_keeps_the_mean_and_the_limit(values: list[float], most: int):
    size = math.ceil(len(values) / most)
    thinned = curves.thin(line(dict(enumerate(values))), most).values
    assert len(thinned) <= most
    weights = [min(size, len(values) - n * size) for n in range(len(thinned))]
    total = math.fsum(v * w for v, w in zip(thinned, weights, strict=True))
    assert total == pytest.approx(math.fsum(values), abs=1e-6)


def test_surrogate_loss_of_rlp_is_not_shown_as_next_token_loss(experiment: Path):
    plots = curves.build_plots(report.group_runs(report.load_folders([experiment])))
    (loss,) = [plot for plot in plots if plot.metric.key == "loss"]
    assert [series.name for series in loss.series] == ["base", "cpt"]
