"""Metrics of a rollout equal values computed by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from rlp.engine.rollout_metrics import rollout_metrics
from rlp.objectives import equations
from tests.support.step import PHI, SETTINGS, WORDS, run


def named(thoughts, target, row, branch):
    """Return whether a thought contains the target."""
    closing = len(WORDS.think_close) * thoughts.closed[row, branch]
    words = thoughts.actions[row, branch, : thoughts.length[row, branch] - closing].tolist()
    sought = np.asarray(target)[row, branch].tolist()
    return any(words[i : i + len(sought)] == sought for i in range(len(words)))


def test_metrics_of_a_rollout_are_counted_by_hand():
    rollout, _, evidence = run(SETTINGS, PHI)
    begun = rollout.thoughts.actions[:, :, :2]  # a target that most thoughts contain
    rollout = dataclasses.replace(rollout, target=rollout.target.at[:, :4].set(begun[:, :4]))
    actual = rollout_metrics(rollout, evidence, SETTINGS, WORDS)
    t = jax.tree.map(np.asarray, rollout.thoughts)
    rewards, advantages = np.asarray(evidence.rewards), np.asarray(evidence.advantages)
    distinct = [
        len({tuple(t.actions[b, 4 * k + g]) for g in range(4)}) / 4 for b, k in np.ndindex(4, 2)
    ]
    by_hand = {
        "reward_mean": rewards.mean(),
        "reward_positive_share": (rewards > 0).mean(),
        "reasoned_evidence": np.mean(evidence.reasoned),
        "baseline_evidence": np.mean(evidence.baseline),
        "information_gain": np.mean(evidence.gain),
        "advantage_std": advantages.std(),
        "zero_variance_share": np.mean(np.ptp(rewards, axis=-1) < 1e-6),
        "thought_length": t.length.mean(),
        "closed_fraction": t.closed.mean(),
        "distinct_thoughts": np.mean(distinct),
        "decode_use": t.length.sum() / int(rollout.decoded),
        "target_named_share": np.mean(
            [named(t, rollout.target, *branch) for branch in np.ndindex(4, 8)]
        ),
        "no_think_loss": float(evidence.no_think.mean()),
    }
    assert 0 < by_hand["target_named_share"] < 1
    assert set(actual) == set(by_hand)
    for name, value in by_hand.items():
        assert float(actual[name]) == pytest.approx(float(value), rel=1e-5), name
    gain = np.asarray(evidence.reasoned) - np.asarray(evidence.baseline)[..., None]
    np.testing.assert_allclose(evidence.gain, gain, rtol=1e-6)
    assert equations.group_advantages(evidence.rewards, evidence.counted).shape == (4, 2, 4)
