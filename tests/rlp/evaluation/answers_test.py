"""From grades to an update: rewards of responses, and planning actions."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.answers.grading import Grade
from rlp.engine import step
from rlp.engine.branches import Thoughts
from rlp.engine.rollout_metrics import responses_stage, rollout_metrics
from rlp.engine.sampling import document_keys
from rlp.engine.step import update
from rlp.objectives import equations
from rlp.training.trainers.answers import answers_of
from tests.support import tiny

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
KEY = jax.random.key(3)
RIGHT = Grade("2", True, True, 0.75, False)
WRONG = Grade("3", False, False, 0.5, False)
SILENT = Grade(None, False, False, None, False)
BROKEN = Grade(None, False, False, 1.0, True)
GRADES = [[RIGHT, WRONG, RIGHT, SILENT], [WRONG, WRONG, BROKEN, WRONG]]
CLOSED = [[True, True, False, True], [True, False, True, True]]
LENGTH = [[2, 3, 4, 1], [4, 4, 2, 2]]


def judged(planning=None, grades=GRADES, **changes):
    """Return the evidence of two groups of four responses, of at most four actions."""
    settings = tiny.rlp_settings(forks_per_document=1, horizon=1, baseline="none", **changes)
    shape = np.array(LENGTH).shape
    thoughts = Thoughts(
        actions=jnp.arange(32, dtype=jnp.int32).reshape(*shape, 4),
        length=jnp.array(LENGTH),
        closed=jnp.array(CLOSED),
        logprobs=jnp.zeros((*shape, 4)),
    )
    rollout = types.SimpleNamespace(thoughts=thoughts, decoded=jnp.array(32))
    reading = types.SimpleNamespace(keys=document_keys(KEY, 0, np.arange(2)))
    answers = answers_of(grades)
    actual = step.answer_rewards_stage(CONFIG, settings, WORDS, reading, rollout, answers, planning)
    return settings, rollout, actual


def test_grades_become_arrays_of_one_fork():
    actual = answers_of(GRADES)
    assert {x.shape for x in jax.tree.leaves(actual)} == {(2, 1, 4)}
    assert actual.correct[:, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
    assert actual.agrees[:, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
    assert actual.given[:, 0].tolist() == [[1, 1, 1, 0], [1, 1, 0, 1]]
    assert actual.failed[:, 0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(
        actual.confidence[:, 0], [[0.75, 0.5, 0.75, np.nan], [0.5, 0.5, 1, 0.5]]
    )


BY_HAND = {
    "rlvr": [[1, 0, 1, 0], [0, 0, 0, 0]],
    "ttrl": [[1, 0, 1, 0], [0, 0, 0, 0]],
    "rlcr": [[1 - 0.0625, -0.25, 1 - 0.0625, -1], [-0.25, -0.25, -1, -0.25]],
    "hicra": [[1, 0, 1, 0], [0, 0, 0, 0]],
    "length_reward": [[0.5, 0.75, 1, 0.25], [1, 1, 0.5, 0.5]],
    "format_reward": CLOSED,
}


@pytest.mark.parametrize("unclosed", ["mask", "append", "penalty"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_verdict_is_the_reward_of_the_answers(name, unclosed):
    _, _, actual = judged(objective=name, unclosed=unclosed, unclosed_penalty=0.5)
    rewards = np.array(BY_HAND[name], float)
    if unclosed == "penalty":
        rewards = rewards - 0.5 * ~np.array(CLOSED)
    np.testing.assert_allclose(actual.rewards[:, 0], rewards, atol=1e-6)
    counted = np.array(CLOSED) if unclosed == "mask" else np.ones((2, 4), bool)
    assert actual.counted[:, 0].tolist() == counted.tolist()
    for group, is_in, advantages in zip(rewards, counted, actual.advantages[:, 0], strict=True):
        kept = group[is_in]
        expected = np.zeros(4)
        if name in ("length_reward", "format_reward"):
            expected[is_in] = (kept - kept.mean()) * len(kept) / (len(kept) - 1)
        elif kept.std() > 0:
            expected[is_in] = (kept - kept.mean()) / kept.std()
        np.testing.assert_allclose(advantages, expected, atol=1e-5)
    assert actual.target_weights is None
    for nothing in (actual.reasoned, actual.gain, actual.baseline, actual.no_think):
        assert not nothing.any()


def test_metrics_of_answers_by_hand():
    grades = [[RIGHT, WRONG, RIGHT, SILENT], [dataclasses.replace(WRONG, agrees=True)] * 2]
    grades[1] += [BROKEN, RIGHT]
    grades[1][3] = dataclasses.replace(RIGHT, agrees=False)
    planning = jnp.zeros((2, 4, 4), bool).at[0, 1, :3].set(True).at[1, 0, 0].set(True)
    settings, rollout, evidence = judged(planning, grades, objective="hicra")
    actual = rollout_metrics(rollout, evidence, settings, WORDS)
    expected = {
        "accuracy": 3 / 8,
        "majority_accuracy": 1 / 2,  # that of the second group is wrong
        "answered_share": 6 / 8,
        "failed_checks_share": 1 / 8,
        "stated_confidence_share": 7 / 8,
        "planning_share": 4 / 22,
        "reward_mean": 3 / 8,
        "closed_fraction": 6 / 8,
        "thought_length": 22 / 8,
    }
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value), name
    for name in ("reasoned_evidence", "information_gain", "no_think_loss", "target_named_share"):
        assert name not in actual
    settings, rollout, evidence = judged(None, grades, objective="rlvr")
    assert "planning_share" not in rollout_metrics(rollout, evidence, settings, WORDS)


def test_the_host_reads_what_was_said_and_the_numbers_of_the_records():
    _, rollout, _ = judged(objective="rlvr")
    batch = types.SimpleNamespace(index=np.array([7, 9]))
    actions, words, index = responses_stage(WORDS, rollout, batch)
    assert actions.tolist() == rollout.thoughts.actions.tolist()
    assert words.tolist() == [[1, 2, 4, 0], [3, 4, 1, 1]]  # without the end token
    assert index.tolist() == [7, 9]


@pytest.mark.parametrize("name", ["rlvr", "hicra"])
def test_an_update_weighs_actions_that_plan(name, monkeypatch):
    planning = jnp.asarray(np.random.default_rng(0).random((2, 4, 4)) < 0.5)
    planning = planning if name == "hicra" else None
    settings, rollout, evidence = judged(planning, objective=name, planning_weight=0.5)
    monkeypatch.setattr(update, "policy_gradient", lambda *args, **_: (0.0, {}, args[5:7]))
    monkeypatch.setattr(update, "_apply", lambda value, metrics, gradient, *_: gradient)
    state = types.SimpleNamespace(params=None)
    advantages, counted = step.update_stage(CONFIG, settings, WORDS, None, state, rollout, evidence)
    flat = np.asarray(evidence.advantages).reshape(2, 4)
    assert np.abs(flat).max() > 0
    assert counted.shape == (2, 4)
    if name == "rlvr":
        np.testing.assert_array_equal(advantages, flat)
        return
    wide = flat[..., None] + 0.5 * np.abs(flat)[..., None] * np.asarray(planning)
    np.testing.assert_allclose(advantages, wide, rtol=1e-6)


def test_advantages_of_single_actions_go_with_their_branches():
    """Micro-batches do not change the gradient."""
    settings, small = tiny.rlp_settings(), tiny.model_config(num_layers=1)
    batch = tiny.documents(0, [9, 12, 10, 8], 12, 22, forks=2)
    params = tiny.params(small, 4)
    rollout, _ = tiny.rollout_stage(small, settings, WORDS)(
        params, params, batch, KEY, jnp.int32(0)
    )
    shape = rollout.thoughts.actions.shape
    advantages = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    counted = np.ones(shape[:2], bool)
    whole, parts = (
        tiny.policy_gradient(small, dataclasses.replace(settings, update_micro_batch=size), WORDS)(
            params, rollout, advantages, counted
        )
        for size in (0, 8)
    )
    weights = equations.action_weights(rollout.thoughts.length, counted, shape[-1], "thought")
    assert whole[0][0] == pytest.approx(-float((weights * advantages).sum()), abs=1e-5)
    assert parts[0][0] == pytest.approx(float(whole[0][0]), abs=1e-5)
    assert tiny.relative_error(parts[1], whole[1]) < 1e-4
