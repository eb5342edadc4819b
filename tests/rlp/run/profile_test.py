"""Tracing steps with `profile.steps`: the trace names the stages, and changes no result."""

import json
import shutil

import jax
import pytest

from configs import default
from rlp.engine.stages import NEXT_TOKEN, RLP
from rlp.run import loop
from rlp.run.checks import profiled_steps
from rlp.runtime.errors import UserError
from rlp.runtime.step_trace import StepTrace
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")
STAGES = {stage.name for stage in (*NEXT_TOKEN, *RLP)}


def settings(**changes):
    config = default.get_config()
    config.update_from_flattened_dict(changes)
    return default.Config.of(config)


def traced(workdir):
    """The bytes of the trace of a run."""
    (trace,) = workdir.glob("profile/plugins/profile/*/*.xplane.pb")
    return trace.read_bytes()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("next_token", {"update"}),
        ("rlp", {"read", "no_think", "rollout", "evidence", "metrics", "update", "finish"}),
        pytest.param("rlvr", {"responses", "grade", "answer_rewards"}, marks=pytest.mark.slow),
    ],
    indirect=["kind"],
)
def test_a_trace_has_the_stages_of_its_steps_and_changes_no_bit(kind, expected, finished, tmp_path):
    _, _, config = kind
    whole = finished(config)
    config = config.copy_and_resolve_references()
    config.profile.steps = "2:4"
    loop.train(config, tmp_path, report=False)
    trace = traced(tmp_path)
    assert expected <= STAGES
    assert all(name.encode() in trace for name in expected)
    outcomes = runs.outcome(tmp_path), runs.outcome(whole)
    for outcome in outcomes:
        del outcome["config"]["profile"]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("kind", ["next_token"], indirect=True)
def test_a_run_resumes_with_other_profiled_steps_and_a_crash_ends_the_trace(kind, tmp_path):
    trainer, _, config = kind
    config.profile.steps = "2:7"
    with crash_at(trainer, "step", 3), pytest.raises(Crash):
        loop.train(config, tmp_path, report=False)
    assert traced(tmp_path)
    shutil.rmtree(tmp_path / "profile")
    config.profile.steps = ""
    loop.train(config, tmp_path, report=False)
    assert not (tmp_path / "profile").exists()
    assert json.loads((tmp_path / "evaluation.json").read_text())["step"] == config.steps


@pytest.mark.parametrize(
    "text", ["10", "13:10", "10:10", "0:2", "a:b", "1:2:3", " 1:2", "1:", "-1:2", "\u0661:2"]
)
def test_steps_to_profile_that_are_not_a_range_are_refused(text):
    with pytest.raises(UserError, match=r"profile\.steps=.* is not FIRST:END with 1 <= FIRST"):
        profiled_steps(settings(**{"profile.steps": text}))


def test_steps_to_profile_are_a_range():
    assert profiled_steps(settings()) == range(0)
    assert profiled_steps(settings(**{"profile.steps": "10:13", "steps": 12})) == range(10, 13)


def test_a_run_without_the_steps_to_profile_says_so(tmp_path, caplog):
    with StepTrace(range(5, 7), tmp_path / "profile") as trace, trace.step(1):
        pass
    assert "steps 5 to 6 were not run, so profile.steps traced nothing" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_a_second_profiler_is_refused(tmp_path):
    with jax.profiler.trace(str(tmp_path / "other")):
        trace = StepTrace(range(1, 2), tmp_path / "profile")
        with pytest.raises(UserError, match="profiler is already active"), trace, trace.step(1):
            pass
