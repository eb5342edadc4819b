"""User-defined surrogate losses: the gradient is that of their weighted losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformer import bind
from rlp.engine.scoring import token_scores
from rlp.objectives import Metric, Objective, registry, rewards
from rlp.objectives.surrogates import CLIPPED, clipped
from rlp.runtime.errors import UserError
from tests.support import tiny

CONFIG = tiny.model_config(num_layers=1)
WORDS = tiny.words(CONFIG)
PARAMS = tiny.params(CONFIG)
BATCH = tiny.documents(0, [12, 9], 12, 22, forks=2)
KEY = jax.random.key(3)
HELD = Metric("held_share", "Held", "share", "a test's")
BONUS = 0.3


def cispo(actions, settings):
    ratio = jnp.exp(actions.logprobs - actions.behavior)
    held = jax.lax.stop_gradient(jnp.minimum(ratio, 1 + settings.clip_high))
    return -held * actions.advantages * actions.logprobs, {HELD.name: ratio > 0}


def with_bonus(actions, settings):
    loss, metrics = clipped(actions, settings)
    return loss - BONUS * actions.entropy, metrics


def objective(surrogate, *reads, metrics=()):
    metrics = dict.fromkeys(metrics)
    made = Objective("", "", rewards.gain, surrogate=surrogate, reads=reads, metrics=metrics)
    return registry._checked("tests.rlp.engine.surrogates_test:MADE", made)


@pytest.fixture
def gradient(monkeypatch):
    """Return loss, metrics and gradient of a surrogate on a rollout of a tiny network."""

    def run(made, advantages, params=PARAMS, **changes):
        name = f"made {id(made)}"
        monkeypatch.setitem(registry.OBJECTIVES, name, made)
        settings = dataclasses.replace(tiny.rlp_settings(**changes), objective=name)
        rollout, _ = tiny.rollout_stage(CONFIG, tiny.rlp_settings(), WORDS)(
            PARAMS, PARAMS, BATCH, KEY, jnp.int32(5)
        )
        counted = jnp.ones(advantages.shape, bool)
        return tiny.policy_gradient(CONFIG, settings, WORDS)(params, rollout, advantages, counted)

    return run


ADVANTAGES = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)


def test_on_policy_cispo_is_the_policy_gradient(gradient):
    (_, metrics), actual = gradient(objective(cispo, metrics=[HELD]), ADVANTAGES)
    (_, ours), expected = gradient(Objective("", "", rewards.gain), ADVANTAGES)
    assert tiny.relative_error(actual, expected) < 1e-5
    assert metrics[HELD.name] == 1
    assert CLIPPED not in metrics
    assert ours.keys() - metrics.keys() == {CLIPPED}


@pytest.mark.parametrize("micro_batch", [0, 4])
def test_an_entropy_bonus_moves_the_entropy(micro_batch, gradient):
    """Without advantages, the loss is -bonus times the entropy; compare slope and gradient."""
    made, none = objective(with_bonus, "entropy"), np.zeros_like(ADVANTAGES)
    changes = {"length_normalization": "limit", "update_micro_batch": micro_batch}
    (loss, metrics), slope = gradient(made, none, **changes)
    share = float(metrics["thought_entropy"])  # of the L actions of a thought, some are not taken
    assert -BONUS * share <= loss < 0
    squared = sum(float((g**2).sum()) for g in jax.tree.leaves(slope))
    far = 0.02 / squared**0.5
    at = lambda far: jax.tree.map(lambda x, g: x + far * g, PARAMS, slope)
    (above, _), _ = gradient(made, none, at(far), **changes)
    (below, _), _ = gradient(made, none, at(-far), **changes)
    assert (above - below) / (2 * far * squared) == pytest.approx(1, rel=1e-2)


def test_the_slope_of_an_entropy_is_that_of_its_formula():
    model = bind(CONFIG, PARAMS)
    hidden = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 32)), jnp.float32)
    targets = jnp.ones((2, 5), jnp.int32)

    def ours(hidden):
        scores = token_scores(model, hidden, targets, (1, 3), 0.7, entropy_gradient=True)
        return (scores.entropy + 2 * scores.logprob).sum()

    def formula(hidden):
        allowed = jnp.ones(CONFIG.vocab_size, bool).at[jnp.array([1, 3])].set(False)
        logits = jnp.where(allowed, model.logits(hidden.reshape(-1, 32)) / 0.7, -1e30)
        logp = jax.nn.log_softmax(logits)
        entropy = -jnp.where(allowed, jnp.exp(logp) * logp, 0.0).sum()
        return entropy + 2 * logp[:, 1].sum()

    np.testing.assert_allclose(jax.grad(ours)(hidden), jax.grad(formula)(hidden), atol=1e-5)


def test_an_undeclared_entropy_is_named(gradient):
    with pytest.raises(UserError, match=r"reads actions\.entropy, which it does not declare"):
        gradient(objective(with_bonus), ADVANTAGES)


@pytest.mark.parametrize(
    ("surrogate", "said"),
    [
        (lambda actions, settings: actions.logprobs, "must return losses and a dict"),
        (lambda actions, settings: (actions.logprobs.sum(), {}), r"instead of \[B, N, L\] or"),
        (cispo, "add held_share to both or to neither"),
    ],
)
def test_what_is_no_surrogate_is_refused(surrogate, said, gradient):
    with pytest.raises(UserError, match=said):
        gradient(objective(surrogate), ADVANTAGES)
