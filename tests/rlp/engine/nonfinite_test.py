"""Errors name the first value that is not finite, with step, document and thought."""

import json
import math
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.paths import by_name
from rlp.engine import nonfinite
from rlp.objectives.equations import standardized_advantages
from rlp.objectives.record import Objective
from rlp.run import loop, state
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from rlp.training.trainers.base import StageRunner
from tests.support import runs, tiny
from tests.support.runs import one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device")
SHORT = {"steps": 4, "evaluation.every": 0, "checkpoint.every": 100, "max_bad_steps": 3}
RLP = runs.COMPASS | {"objective": "rlp"}


def put(values, place, value):
    return values.at[place].set(value)


def objective(**changes):
    return Objective(formula="", source="", **changes)


NAN = objective(reward=lambda outcome: put(outcome.reasoned, (1, 0, 2), jnp.nan))
INFINITE = objective(
    reward=lambda outcome: put(outcome.answers.correct.astype(jnp.float32), (2, 0, 1), jnp.inf),
    advantages=standardized_advantages,
    reads=("answers",),
)


@pytest.mark.parametrize(
    ("changes", "name", "what", "where"),
    [
        (RLP, "NAN", "the reward", "nan for thought 2 of fork 0 of document 1 (row 1 of"),
        pytest.param(
            runs.COMPASS_RLVR,
            "INFINITE",
            "the reward",
            "inf for thought 1 of fork 0 of document 2",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_objective_that_gives_no_number_is_named_with_document_and_thought(
    changes, name, what, where, tmp_path, caplog
):
    config = runs.config(changes, SHORT, {"objective": f"{__name__}:{name}"})
    with pytest.raises(UserError) as caught:
        loop.train(config, tmp_path, report=False)
    said = str(caught.value)
    assert (
        "3 updates in a row had a loss or gradient that is not finite, the last at step 3" in said
    )
    assert f"{what} of objective='{__name__}:{name}' is {where}" in said
    assert "correct the objective" in said
    assert "learning_rate" not in said
    first = [line for line in caplog.messages if line.startswith("step 1: ")]
    assert len(first) == 1
    assert what in first[0]
    assert not any(line.startswith("step 2: ") for line in caplog.messages)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [RLP, runs.COMPASS_RLVR], ids=["rlp", "rlvr"])
def test_weights_that_are_not_numbers_are_named_and_metrics_of_their_thoughts_are_null(
    changes, tmp_path, monkeypatch
):
    make = state.init

    def broken(model, key):
        params = make(model, key)
        return params | {"embedding": put(params["embedding"], (slice(0, 2), 3), jnp.nan)}

    monkeypatch.setattr(state, "init", broken)
    with pytest.raises(UserError) as caught:
        loop.train(runs.config(changes, SHORT), tmp_path, report=False)
    said = str(caught.value)
    assert "parameter embedding has 2 of " in said
    assert "values that are not finite" in said
    assert "learning_rate" not in said
    for line in runs.metrics(tmp_path):
        for name in ("reward_mean", "thought_length", "closed_fraction", "distinct_thoughts"):
            assert line[name] is None


def test_a_checkpoint_with_a_value_that_is_not_a_number_is_not_started_from(tmp_path):
    config = runs.config(runs.COMPASS, SHORT, {"steps": 1, "objective": "next_token"})
    base, damaged = tmp_path / "base", tmp_path / "damaged"
    loop.train(config, base, report=False)
    damaged.mkdir()
    shutil.copyfile(base / "config.json", damaged / "config.json")
    params = runs.checkpoint(base)["params"]
    leaf, tree = jax.tree.flatten(params)
    leaf[-1] = put(jnp.asarray(leaf[-1]), (0,) * leaf[-1].ndim, jnp.inf)
    with Checkpoints(damaged / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": jax.tree.unflatten(tree, leaf)})
    later = runs.config(runs.COMPASS, SHORT, {"objective": "rlp", "init_from": str(damaged)})
    with pytest.raises(UserError) as caught:
        loop.train(later, tmp_path / "later", report=False)
    name = [*by_name(params)][-1]
    assert f"step 1 of {damaged}: parameter {name} has 1 of " in str(caught.value)
    assert not (tmp_path / "later" / "config.json").exists()


def test_nothing_is_looked_for_in_a_sound_step(tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "in_networks", None)
    loop.train(runs.config(RLP, SHORT), tmp_path, report=False)
    assert json.loads((tmp_path / "evaluation.json").read_text())["skipped_updates"] == 0


# In the order of the computation: each makes all later values not finite.
OF_THOUGHTS = {
    "logprobs": "the log-probability of a sampled thought is nan for thought 1 of fork 1",
    "baseline": "the log-probability of the text without a thought is nan for fork 1",
    "reasoned": "the log-probability of the text after a thought is nan for thought 1 of fork 1",
    "rewards": "the reward of objective='mine' is nan for thought 1 of fork 1",
    "advantages": "the advantage of objective='mine' is nan for thought 1 of fork 1",
    "target_weights": "the target's weight of objective='mine' is nan for thought 1 of fork 1",
    "reference": "the log-probability of a thought under the reference is nan for thought 1 of f",
}


@pytest.mark.parametrize("name", OF_THOUGHTS)
def test_what_was_computed_first_is_named(name):
    documents, forks, group, length = 3, 2, 4, 5
    each = dict.fromkeys(("reasoned", "rewards", "advantages", "target_weights"))
    values = {key: jnp.ones((documents, forks, group)) for key in each}
    values["baseline"] = jnp.ones((documents, forks))
    actions = jnp.ones((documents, forks * group, length))
    values |= {"logprobs": actions, "reference": actions}
    for later in list(OF_THOUGHTS)[list(OF_THOUGHTS).index(name) :]:
        place = (2, 1, 1)[: values[later].ndim]
        place = (2, group + 1, 4) if later in ("logprobs", "reference") else place
        values[later] = put(values[later], place, jnp.nan)
    rollout = SimpleNamespace(thoughts=SimpleNamespace(logprobs=values.pop("logprobs")))
    evidence = SimpleNamespace(answers=None, **values)
    said = nonfinite.in_thoughts(rollout, evidence, "mine", lambda row: 40 + row, None)
    assert said.startswith(OF_THOUGHTS[name])
    assert " of document 42 (row 2 of the batch; counted from 0)" in said


STAGES = {
    "logprobs": "rollout",
    "baseline": "no_think",
    "reference": "reference",
}


def test_the_stage_of_every_value_is_named():
    shape = (1, 1, 2)
    for name in OF_THOUGHTS:
        values = {key: jnp.ones(shape) for key in OF_THOUGHTS}
        values["baseline"] = jnp.ones((1, 1))
        values |= {"logprobs": jnp.ones((1, 2, 3)), "reference": jnp.ones((1, 2, 3))}
        values[name] = values[name] * jnp.inf
        rollout = SimpleNamespace(thoughts=SimpleNamespace(logprobs=values.pop("logprobs")))
        evidence = SimpleNamespace(answers=None, **values)
        said = nonfinite.in_thoughts(rollout, evidence, "mine", int, None)
        assert f", in stage {STAGES.get(name, 'evidence')!r}; " in said


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (jnp.nan, "the log-probability of a thought is nan for thought 1 of fork 0 of document 42"),
        (100.0, "the sum of the ratios of a thought is inf for thought 1 of fork 0 of document 42"),
        (0.5, ""),
    ],
)
def test_a_thought_that_is_not_finite_only_in_the_update_is_named(new, expected):
    zeros, lengths = jnp.zeros((3, 2, 4)), jnp.full((3, 2), 3)
    rollout = SimpleNamespace(thoughts=SimpleNamespace(logprobs=zeros, length=lengths))
    evidence = SimpleNamespace(rewards=jnp.zeros((3, 1, 2)))
    logprobs = put(zeros, (2, 1, 0), new)
    said = nonfinite.in_new_logprobs(rollout, evidence, logprobs, lambda row: 40 + row, None)
    assert said.startswith(expected)
    assert bool(said) == bool(expected)
    assert not said or ", in stage 'update'; lower optimizer.learning_rate" in said


def test_the_first_gradient_of_the_backward_pass_that_is_not_finite_is_named():
    sound = {
        "embedding": jnp.ones((4, 2)),
        "blocks": {
            "attention": {"kernel": jnp.ones((3, 2, 2))},
            "feed_forward": {"kernel": jnp.ones((3, 2, 5))},
        },
        "norm": {"scale": jnp.ones(2)},
    }
    name = lambda gradient: nonfinite.in_gradient(
        lambda x: x, (gradient,), tiny.model_config(num_layers=3), None
    )
    assert name(sound) == ""
    kernel = sound["blocks"]["attention"]["kernel"].at[0].set(jnp.nan).at[1, 0, 1].set(jnp.inf)
    bad = sound | {"embedding": sound["embedding"] * jnp.nan}
    bad["blocks"] = sound["blocks"] | {"attention": {"kernel": kernel}}
    assert name(bad) == (
        "the gradient of blocks/attention/kernel of layer 1 (counted from 0) has 1 of 4 values "
        "that are not finite (so do the gradients of 1 more parameters), in stage 'update'; "
        + nonfinite.OVERFLOW
    )
    assert name(bad | {"norm": {"scale": jnp.full(2, jnp.inf)}}).startswith(
        "the gradient of norm/scale has 2 of 2 values that"
    )


# Its value is finite, and its gradient is 0 * inf.
STEEP = objective(
    surrogate=lambda seen, settings: (jnp.sqrt(0.0 * seen.logprobs), {}),
    reward=lambda outcome: outcome.reasoned,
)


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter(tmp_path):
    config = runs.config(RLP, SHORT, {"objective": f"{__name__}:STEEP", "max_bad_steps": 1})
    with pytest.raises(UserError) as caught:
        loop.train(config, tmp_path, report=False)
    assert "the last at step 1; in the first of them: the gradient of norm/scale has " in str(
        caught.value
    )
    assert "in stage 'update'" in str(caught.value)


def test_a_next_token_step_is_searched_to_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(nonfinite, "in_metrics", lambda metrics: ["loss"])
    config = runs.config(runs.COMPASS, SHORT, {"steps": 1, "objective": "next_token"})
    loop.train(config, tmp_path, report=False)
    assert f"step 1: {nonfinite.in_update({})}" in caplog.messages


def test_a_parameter_is_named_by_its_path_with_the_number_of_its_values():
    sound = {"a": {"kernel": jnp.ones((2, 3))}, "b": jnp.zeros(4)}
    assert nonfinite.in_parameters(sound) == ""
    bad = {"a": {"kernel": jnp.ones((2, 3)).at[0].set(jnp.nan)}, "b": jnp.full(4, jnp.inf)}
    assert nonfinite.in_parameters(bad) == (
        "parameter a/kernel has 3 of 6 values that are not finite (so do 1 more parameters)"
    )


def test_a_row_whose_loss_is_no_number_is_named():
    assert nonfinite.in_rows(np.ones(3), lambda row: row) == ""
    said = nonfinite.in_rows(np.array([1.0, math.nan, math.inf]), lambda row: 40 + row)
    assert "the loss is nan for document 41 (row 1 of the batch; counted from 0)" in said
    assert "(2 of 3 rows are not finite)" in said


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ({"loss": math.nan, "grad_norm": math.nan}, "the loss is not finite"),
        ({"loss": 1.0, "grad_norm": math.inf}, "the gradient is not finite"),
        ({"loss": 1.0, "grad_norm": 1.0}, "the updated parameters overflow"),
    ],
)
def test_the_message_on_an_update_follows_from_its_metrics(metrics, what):
    assert nonfinite.in_update(metrics).startswith(what)
    assert "lower optimizer.learning_rate" in nonfinite.in_update(metrics)


def test_the_search_runs_once_for_bad_steps_in_a_row_and_may_run_out_of_memory():
    runner, searches = object.__new__(StageRunner), []
    runner.fault = ""
    bad, full = {"loss": math.nan}, jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory")

    def search(error=full):
        searches.append(error)
        raise error

    runner.find_fault(bad, search)
    assert runner.fault == nonfinite.in_update(bad)
    runner.find_fault(bad, search)
    assert len(searches) == 1
    runner.find_fault({"loss": 1.0}, search)
    assert runner.fault == ""
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        runner.find_fault(bad, lambda: search(jax.errors.JaxRuntimeError("INTERNAL: broken")))
