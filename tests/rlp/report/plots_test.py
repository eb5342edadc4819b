"""Plots as PNG files."""

from pathlib import Path

from rlp import report
from rlp.report import curves
from tests.support.reports import FIGURE_KEYS


def test_a_png_for_every_metric_that_a_run_has(experiment: Path):
    from matplotlib.image import imread

    report.write_report([experiment], experiment / "report.html")
    plots = curves.build_plots(report.group_runs(report.load_folders([experiment])))
    names = {plot.metric.key.replace("/", "_") for plot in plots} | {"overview"}
    assert {f"evaluation_{key}" for key in FIGURE_KEYS} < names
    assert {path.name for path in (experiment / "plots").iterdir()} == {f"{n}.png" for n in names}
    for path in (experiment / "plots").iterdir():
        image = imread(path)
        assert min(image.shape[:2]) > 200
        assert image.std() > 0.01
