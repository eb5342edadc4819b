"""Experiments: the order of the arms, their initial models, and the files that they write."""

import importlib.metadata
import json
import os
import platform
import signal
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import demo
from rlp.evaluation.evaluator import Evaluator
from rlp.metrics import catalogue
from rlp.run import experiment, loop
from rlp.runtime.errors import UserError
from rlp.runtime.preemption import Preempted
from rlp.training.checkpoint import Checkpoints
from rlp.training.trainers import NextTokenTrainer, RLPTrainer
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")

ARMS = {
    "cpt": {"init_from": "base", "match": "rlp:flops", "evaluation": {"every": 0}},
    "rlp": {"init_from": "base@best", "objective": "rlp", "rlp": {"group_size": 4}},
    "base": {"batch_size": 8, "optimizer": {"learning_rate": 3e-3}},
}


def config(arms=ARMS, **changes):
    """Return the config of a tiny experiment whose arms are not in dependency order."""
    made = runs.config(runs.COMPASS, {"steps": 4, "batch_size": 2}, changes)
    made.arms = ConfigDict(arms)
    return made


@pytest.fixture(scope="module")
def finished(one_device, tmp_path_factory):  # noqa: F811
    """Return (workdir, summary) of an uninterrupted experiment."""
    workdir = tmp_path_factory.mktemp("experiment") / "whole"
    return workdir, experiment.run(config(), workdir)


def test_the_summary_has_every_figure_of_every_arm(finished):
    workdir, summary = finished
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert summary["arms"] == ["base", "rlp", "cpt"]
    assert summary["seed"] == 0
    for arm in summary["arms"]:
        for name in (*catalogue.names("documents"), "flops"):
            assert isinstance(summary[arm][name], float | int), name
        assert set(summary[arm]["wall_s"]) == {"train", "evaluate"}
        assert all(seconds > 0 for seconds in summary[arm]["wall_s"].values())
        assert summary[arm]["steps"] == len(runs.metrics(workdir / arm))
        assert summary[arm]["flops"] == runs.metrics(workdir / arm)[-1]["flops"]
    stages = [s for arm in summary["arms"] for s in summary[arm]["wall_s"].values()]
    assert summary["wall_s"] == pytest.approx(sum(stages))
    assert summary["versions"]["python"] == platform.python_version()
    assert summary["versions"]["jax"] == importlib.metadata.version("jax")
    page = (workdir / "report.html").read_text()
    assert "</html>" in page
    assert all(f"{arm}" in page for arm in summary["arms"])
    assert list((workdir / "plots").glob("*.png"))


def test_arms_start_from_the_base_and_cost_the_same(finished):
    workdir, summary = finished
    steps = summary["cpt"]["steps"]
    assert abs(summary["cpt"]["flops"] - summary["rlp"]["flops"]) <= summary["cpt"]["flops"] / steps
    assert steps > 4
    read = lambda folder: json.loads((folder / "config.json").read_text())
    saved = {arm: read(workdir / arm) for arm in summary["arms"]}
    assert saved["rlp"]["init_from"] == f"{workdir / 'base'}@best"
    assert saved["cpt"]["init_from"] == str(workdir / "base")
    assert saved["cpt"]["match"] == f"{workdir / 'rlp'}:flops"
    assert (saved["base"]["batch_size"], saved["rlp"]["batch_size"]) == (8, 2)
    assert read(workdir)["arms"] == ARMS


def test_stopped_in_the_middle_of_arms_it_goes_on_and_ends_the_same(finished, tmp_path):
    whole, summary = finished
    # Both folders have the same name, because folder names are part of an arm's config.
    stops = [
        (NextTokenTrainer, "step", 3),  # base
        (RLPTrainer, "step", 4),
        (Checkpoints, "save", 1),  # rlp
        (NextTokenTrainer, "step", 2),  # cpt
        (experiment, "write_report_separately", 1),
    ]
    workdir = tmp_path / "stopped"
    for owner, *moment in stops:
        with crash_at(owner, *moment), pytest.raises(Crash):
            experiment.run(config(), workdir)
    found = experiment.run(config(), workdir)
    assert runs.timeless(found) == runs.timeless(summary)
    for arm in summary["arms"]:
        resumed, uninterrupted = runs.outcome(workdir / arm), runs.outcome(whole / arm)
        for outcome in (resumed, uninterrupted):
            del outcome["config"]  # contains the folder
        assert resumed == uninterrupted


def test_a_finished_experiment_is_not_run_again(finished, monkeypatch):
    workdir, summary = finished
    monkeypatch.setattr(loop, "_Loop", None)
    assert experiment.run(config(), workdir) == summary


def test_where_the_config_may_change_only_what_did_goes_on(tmp_path):
    workdir = tmp_path / "run"
    first = experiment.run(config(steps=2), workdir, report=False)
    before = {arm: stamp(workdir / arm) for arm in ARMS}
    more = ARMS | {"rlp": ARMS["rlp"] | {"steps": 3}, "more": {"init_from": "rlp", "steps": 1}}
    summary = experiment.run(config(more, steps=2), workdir, allow_config_change=True, report=False)
    assert {arm for arm in ARMS if stamp(workdir / arm) != before[arm]} == {"rlp", "cpt"}
    assert (summary["rlp"]["steps"], summary["more"]["steps"]) == (3, 1)
    assert summary["cpt"]["steps"] > first["cpt"]["steps"]  # its budget has grown


def stamp(folder):
    """Return the time of a run's last evaluation."""
    return (folder / "evaluation.json").stat().st_mtime_ns


def test_sigterm_late_in_an_arm_stops_before_the_next(tmp_path):
    browse = Evaluator.browse

    def terminated(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return browse(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "browse", terminated)
        with pytest.raises(Preempted):
            experiment.run(config({"a": {}, "b": {}}, steps=1), tmp_path)
    assert (tmp_path / "a" / "evaluation.json").exists()
    assert not (tmp_path / "b").exists()


# Invalid arms.


def circle(first, second):
    return {"base": {}, "a": first, "b": second}


BAD_ARMS = {
    "no arms": ({}, "arms is empty"),
    "a reserved name": ({"seed": {}}, "the arm name 'seed' is reserved"),
    "a folder elsewhere": ({"/tmp/x": {}}, "an arm cannot be called '/tmp/x'"),
    "a folder below": ({"a/x": {}}, "an arm cannot be called 'a/x'"),
    "no name": ({"": {}}, "an arm cannot be called ''"),
    "a name that a terminal obeys": ({"a\x1b[2J": {}}, r"an arm cannot be called 'a\\x1b\[2J'"),
    "a name that is too long": ({"x" * 201: {}}, "an arm cannot be called 'xxx"),
    "an unknown field": ({"a": {"rlp": {"groop_size": 3}}}, r"arms\.a .*groop_size"),
    "an unknown group": ({"a": {"model_": {"x": 3}}}, r"arms\.a .*model_"),
    "a wrong type": ({"a": {"steps": "many"}}, r"arms\.a .*"),
    "a number for a group": ({"a": {"model": 3}}, r"arms\.a .*"),
    "no group of fields": ({"a": 3}, r"arms\.a .*"),
    "a circle of two": (
        circle({"init_from": "b"}, {"init_from": "a@best"}),
        "the arms a, b depend on one another",
    ),
    "a circle of kinds": (
        circle({"init_from": "b"}, {"match": "a:flops"}),
        "the arms a, b depend on one another",
    ),
    "itself": ({"a": {"init_from": "a"}}, "the arms a depend on one another"),
    "no such arm": (
        {"base": {}, "a": {"init_from": "bsae"}},
        "arm a builds on bsae, which is neither a folder nor an arm; the arms are a, base",
    ),
    "no such arm to match": (
        {"base": {}, "a": {"match": "bsae:flops"}},
        "arm a builds on bsae, which is neither a folder nor an arm",
    ),
    "a bad value in a later arm": ({"base": {}, "a": {"steps": 0}}, "arm a: steps=0"),
    "a bad match in a later arm": (
        {"base": {}, "a": {"match": "base:steps"}},
        "arm a: match='.*base:steps' is not '<workdir>:flops'",
    ),
    "a match with an arm that takes no step": (
        {"base": {}, "a": {"init_from": "base", "steps": 0}, "b": {"match": "a:flops"}},
        "arm b: match='.*a:flops': that arm takes no steps; match another arm",
    ),
    "a bad model in a later arm": (
        {"base": {}, "a": {"model": {"head_dim": 7}}},
        r"arm a: model\.head_dim=7 is odd",
    ),
    "no documents in the first arm": (
        {"base": {"data": {"kind": "text", "train": "no/such"}, "rlp": {"positions": "uniform"}}},
        "data.train: file or folder not found: no/such",
    ),
}


@pytest.mark.parametrize("case", BAD_ARMS)
def test_bad_arms_are_refused_before_any_runs(case, tmp_path):
    arms, message = BAD_ARMS[case]
    with pytest.raises(UserError, match=message) as caught:
        experiment.run(config(arms), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_another_experiment_is_refused_with_what_differs(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_bytes()
    other = config(ARMS | {"rlp": ARMS["rlp"] | {"steps": 5}}, seed=1)
    with pytest.raises(
        UserError, match=r"a different config \(arms\.rlp\.steps: .*; seed: 0 -> 1\)"
    ):
        experiment.run(other, workdir)
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize("folder", ["run", "run@best", "a@b"])
def test_arms_run_after_those_they_build_on_whatever_the_folder_is_called(folder, tmp_path):
    names = {
        "last": {"match": "third:flops", "init_from": "second"},
        "third": {"init_from": "second@best"},
        "second": {"init_from": "first@3"},
        "first": {},
        "alone": {"init_from": str(tmp_path)},
    }
    made, workdir = config(names), tmp_path / folder
    arms = {name: experiment.arm_config(made, name, workdir) for name in names}
    order = experiment.arm_order(arms, workdir)
    assert sorted(order) == sorted(names)
    assert [name for name in order if name != "alone"] == ["first", "second", "third", "last"]
    assert arms["second"].init_from == f"{workdir}/first@3"


@pytest.mark.parametrize("spelling", ["absolute", "link", "relative"])
def test_an_arm_is_known_by_its_folder_however_that_is_written(spelling, tmp_path, monkeypatch):
    """This holds even before the folder exists, when only path strings can be compared."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    workdir = Path("exp") if spelling == "absolute" else tmp_path / "exp"
    written = {"absolute": tmp_path / "exp", "link": tmp_path / "link/exp", "relative": "./exp"}
    base = f"{written[spelling]}/base"
    names = {"match": {"match": f"{base}:flops"}, "start": {"init_from": f"{base}@3"}, "base": {}}
    made = config(names)
    arms = {name: experiment.arm_config(made, name, workdir) for name in names}
    assert experiment.arm_order(arms, workdir)[0] == "base"


def test_an_arm_has_options_of_its_own_objective(tmp_path):
    config = demo.get_config()
    config.objective_options.alpha = 0.5
    config.arms.rlp.objective_options = {"alpha": 0.25, "rule": "a"}
    options = lambda arm: experiment.arm_config(config, arm, tmp_path).objective_options.to_dict()
    assert options("rlp") == {"alpha": 0.25, "rule": "a"}
    assert options("base") == {"alpha": 0.5}
