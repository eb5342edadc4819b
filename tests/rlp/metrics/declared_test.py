"""Metrics that an objective declares: saved in the run folder, shown by reports, validated."""

import json

import pytest

from rlp import report
from rlp.metrics import declared
from rlp.metrics.metric import Metric
from rlp.metrics.watch import Rule
from rlp.metrics.writer import MetricsWriter
from rlp.report import curves, page
from rlp.runtime.errors import UserError
from tests.support.reports import make_run

REPEATS = Metric("repeats", "Repeated <b>tokens", "share", "of a thought", lower_is_better=True)


def test_a_declared_metric_is_plotted_with_what_is_said_of_it(tmp_path):
    folder = make_run(tmp_path / "run")
    with MetricsWriter(folder, None, metrics=[REPEATS]) as writer:
        for step in (1, 2):
            writer.write(step, {"repeats": step / 4, "loss": 1.0})
    sources = report.load_folders([folder])
    groups = report.group_runs(sources)
    (plot,) = [plot for plot in curves.build_plots(groups) if plot.metric.name == "repeats"]
    assert plot.metric == REPEATS
    assert plot.series[0].mean.values.tolist() == [0.25, 0.5]
    assert "<b>tokens" not in page.render(sources, groups)
    MetricsWriter(folder, 2).close()  # an objective that declares none any more
    assert report.load_folders([folder])[0].runs[0].declared == ()


@pytest.mark.parametrize(
    "names", [["loss"], ["step"], ["seconds_mine"], ["evaluation/mine"], [""], [" x"], ["x", "x"]]
)
def test_a_name_that_cannot_be_told_apart_is_refused(names):
    with pytest.raises(UserError, match=r"^objective='mine:X': .*(another name|use letters|once)"):
        declared.check([Metric(name, "t", "", "m") for name in names], [], "objective='mine:X'")


@pytest.mark.parametrize(
    "content",
    [{}, {"metrics": [{}]}, {"metrics": 3}, {"metrics": [{"name": "x"}]}, {"metrics": [1]}],
)
def test_a_damaged_record_is_noted_in_the_report(tmp_path, content):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.declared.json").write_text(json.dumps(content))
    (source,) = report.load_folders([folder])
    assert source.runs[0].declared == ()
    assert any("metrics.declared.json" in note for note in source.notes)


def test_an_objective_measures_in_steps():
    with pytest.raises(UserError, match="'mine' has measured='documents'.*; leave it out"):
        declared.check([Metric("mine", "t", "", "m", "documents")], [], "objective='mine:X'")


def test_a_warning_reads_what_is_measured():
    rules = [Rule("mine", ("repeats", "loss", "evaluation/think_loss"), lambda *_: None)]
    declared.check([REPEATS], rules, "objective='mine:X'")
    with pytest.raises(UserError, match="the warning 'mine' reads repeats, which no run measures"):
        declared.check([], rules, "objective='mine:X'")
