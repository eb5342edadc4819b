"""Given forks near the end of a document: the target is the tokens that there are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.engine import step
from rlp.engine.method import Method
from rlp.engine.rollout_metrics import rollout_metrics
from rlp.evaluation.evaluator import Evaluator
from rlp.objectives.registry import OBJECTIVES
from tests.support import tiny
from tests.support.outcomes import outcome
from tests.support.step import BATCH, CONFIG, KEY, PARAMS, PHI, WORDS, run

LENGTHS = np.array([12, 16, 9, 14])  # of `BATCH`, whose rows have 16 tokens: one is full
ENDS = BATCH.replace(forks=(LENGTHS - 2)[:, None].astype(np.int32))  # answers of two tokens
SHORT = tiny.rlp_settings(
    forks_per_document=1, positions="given", unclosed="mask", target_weight=0.5
)
LONG = dataclasses.replace(SHORT, horizon=8)


@pytest.mark.parametrize("weighting", ["mean", "discount"])
def test_an_answer_of_two_tokens_has_at_horizon_8_what_it_has_at_horizon_2(weighting):
    """Evidence, rewards and advantages, metrics, loss and gradient, also that of the target."""
    found = []
    for settings in (SHORT, LONG):
        settings = dataclasses.replace(settings, horizon_weighting=weighting)
        rollout, forks, evidence = run(settings, PHI, ENDS)
        metrics = rollout_metrics(rollout, evidence, settings, WORDS)
        (loss, of_update), gradient = tiny.policy_gradient(CONFIG, settings, WORDS)(
            PARAMS, rollout, tiny.flat(evidence.advantages), tiny.flat(evidence.counted),
            None, tiny.flat(evidence.target_weights),
        )  # fmt: skip
        assert forks.present.sum(axis=-1).tolist() == [[2]] * 4
        found.append((evidence, metrics, loss, of_update, gradient, rollout.thoughts.actions))
    (evidence, metrics, loss, of_update, gradient, actions), (*expected, same_actions) = found
    assert np.array_equal(actions, same_actions)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, (evidence, metrics, loss, of_update), tuple(expected[:4]))
    assert tiny.relative_error(gradient, expected[4]) < 1e-5
    assert np.abs(evidence.gain).max() > 0.1


def test_a_whole_target_is_not_changed_by_a_short_one_in_its_batch():
    mixed = ENDS.replace(forks=np.array([[1], [14], [1], [12]], np.int32))
    _, forks, evidence = run(LONG, PHI, mixed)
    assert forks.present.sum(axis=-1).tolist() == [[8], [2], [8], [2]]
    _, _, ends = run(LONG, PHI, ENDS)
    _, _, starts = run(LONG, PHI, ENDS.replace(forks=np.array([[1], [1], [1], [1]], np.int32)))
    for name in ("reasoned", "baseline", "no_think", "rewards"):
        of = lambda x, name=name: np.asarray(getattr(x, name))
        np.testing.assert_allclose(of(evidence)[[1, 3]], of(ends)[[1, 3]], atol=1e-5)
        np.testing.assert_allclose(of(evidence)[[0, 2]], of(starts)[[0, 2]], atol=1e-5)


def test_held_out_metrics_are_over_the_tokens_that_there_are():
    metrics = [
        Evaluator(
            Method(CONFIG, settings, WORDS), "given", 1, 2, 4, make_mesh(devices=jax.devices()[:1])
        ).document_metrics(PARAMS, ENDS, jax.random.key(2))
        for settings in (SHORT, LONG)
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    assert 0 < metrics[0]["no_think_accuracy"] + metrics[0]["sampled_think_accuracy"] < 2


@pytest.mark.parametrize("name", ["rlp", "verifree", "rlpr", "nover"])
def test_tokens_that_there_are_not_change_no_reward(name):
    """The rewards that read evidence or the log-probability of every token."""
    whole = outcome()
    more = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 3)])
    short = dataclasses.replace(
        whole,
        logprobs=more(whole.logprobs),
        baseline_logprobs=more(whole.baseline_logprobs),
        present=more(whole.present),
    )
    reward = OBJECTIVES[name].reward
    np.testing.assert_allclose(reward(short), reward(whole), rtol=1e-6)


@pytest.mark.parametrize("name", ["shuffled_target", "other_document"])
def test_controls_score_the_target_that_there_is_elsewhere(name):
    """Another position has its whole target; another document has its own, short one."""
    found = []
    for settings in (SHORT, LONG):
        settings = dataclasses.replace(settings, objective=name)
        method = (CONFIG, settings, WORDS)
        rollout, reading = tiny.rollout_stage(*method)(PARAMS, PARAMS, ENDS, KEY, jnp.int32(5))
        no_think = tiny.jit(lambda *x, m=method: step.no_think_stage(*m, *x))(
            PARAMS, PHI, ENDS, reading
        )
        evidence = tiny.jit(lambda *x, m=method: step.evidence_stage(*m, *x))(
            PARAMS, reading, no_think, rollout
        )
        found.append(np.asarray(evidence.rewards))
    assert np.isfinite(found).all()
    if name == "other_document":
        np.testing.assert_allclose(*found, atol=1e-5)
    else:
        assert (found[1] < found[0]).mean() > 0.5  # eight tokens have more nats than two
