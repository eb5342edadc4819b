"""A folder contains one run, which may start from another; a finished run is not changed."""

import json
import shutil

import jax
import numpy as np
import pytest

from rlp.run import loop
from rlp.runtime.errors import UserError
from rlp.training.trainers import NextTokenTrainer, RLPTrainer
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")

quickest_kind = pytest.mark.parametrize("kind", ["next_token"], indirect=True)


@quickest_kind
def test_a_finished_run_is_left_as_it_is(kind, tmp_path, finished, monkeypatch):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    monkeypatch.setattr(loop, "_Loop", None)
    result = loop.train(config, workdir, report=False)
    assert result == json.loads((workdir / "evaluation.json").read_text())
    assert snapshot(workdir) == before
    loop.train(config, workdir)  # only the report is missing
    assert "</html>" in (workdir / "report.html").read_text()
    monkeypatch.setattr(loop, "write_report_separately", None)
    loop.train(config, workdir)


@quickest_kind
def test_what_was_damaged_of_the_metrics_of_a_run_is_named_and_the_state_is_the_same(
    kind, tmp_path, finished, caplog
):
    _, _, config = kind
    with crash_at(NextTokenTrainer, "step", 6), pytest.raises(Crash):
        loop.train(config, tmp_path, report=False)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20], *lines[2:]]))
    caplog.clear()
    loop.train(config, tmp_path, report=False)
    assert [m for m in caplog.messages if "metrics of step 2 are missing" in m]
    found, whole = runs.outcome(tmp_path), runs.outcome(finished(config))
    assert found["arrays"] == whole["arrays"]
    assert found["metrics"] == [line for line in whole["metrics"] if line["step"] != 2]
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == lines[1][:20] + b"\n"


@quickest_kind
def test_another_config_is_refused_unless_allowed(kind, tmp_path, finished):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    with config.unlocked():
        config.steps, config.optimizer.learning_rate = 9, 5e-4
    with pytest.raises(UserError, match="a different config") as caught:
        loop.train(config, workdir, report=False)
    named = str(caught.value)
    assert "optimizer.learning_rate: 0.001 -> 0.0005; steps: 7 -> 9" in named
    assert snapshot(workdir) == before
    with crash_at(NextTokenTrainer, "step", 2), pytest.raises(Crash):
        loop.train(config, workdir, allow_config_change=True, report=False)
    # The folder now belongs to the new run, and the old evaluation.json is gone.
    result = loop.train(config, workdir, report=False)
    assert result["step"] == 9
    assert [line["step"] for line in runs.metrics(workdir)] == list(range(1, 10))
    assert [line["learning_rate"] for line in runs.metrics(workdir)[6:]] == pytest.approx(
        [1e-3, 5e-4, 5e-4], rel=1e-6
    )


@quickest_kind
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_touched(kind, tmp_path, finished):
    _, _, config = kind
    workdir = shutil.copytree(finished(config), tmp_path / "run")
    before = snapshot(workdir)
    with config.unlocked():
        config.model.ffn_size = 48
    with pytest.raises(
        UserError, match=r"does not match this run's config: .*float32\[1,32,32\] th"
    ):
        loop.train(config, workdir, allow_config_change=True, report=False)
    assert snapshot(workdir) == before


def snapshot(folder):
    """Return every file below a folder, with its content."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("which", ["", "@6", "@best"])
def test_a_run_starts_from_exactly_the_parameters_it_names(which, tmp_path, text, finished):
    base = finished(runs.config(runs.TEXT, text))
    if which == "@best":
        losses = {
            line["step"]: line["evaluation/document_loss"]
            for line in runs.metrics(base)
            if "evaluation/document_loss" in line
        }
        losses[7] = json.loads((base / "evaluation.json").read_text())["document_loss"]
        step = min(losses, key=losses.get)
    else:
        step = int(which[1:] or 7)
    config = runs.config(runs.TEXT_RLP, text, {"init_from": f"{base}{which}"})
    with crash_at(RLPTrainer, "step", 1) as calls, pytest.raises(Crash):
        loop.train(config, tmp_path, report=False)
    ((_, state, _, _),) = calls
    expected = runs.bits(runs.checkpoint(base, step)["params"])
    assert runs.bits(state.params) == expected
    assert runs.bits(state.baseline) == expected
    assert runs.bits(state.reference) == expected
    assert int(state.step) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))


def test_a_run_goes_on_without_the_run_it_started_from(tmp_path, text, finished):
    base = shutil.copytree(finished(runs.config(runs.TEXT, text)), tmp_path / "base")
    config = runs.config(runs.TEXT, text, {"init_from": str(base), "steps": 3})
    crashed(config, tmp_path / "next", NextTokenTrainer, "step", 3)
    shutil.rmtree(base)
    loop.train(config, tmp_path / "next", report=False)
    assert runs.steps(tmp_path / "next")[-1] == 3


def crashed(config, workdir, *moment):
    with crash_at(*moment), pytest.raises(Crash):
        loop.train(config, workdir, report=False)
