"""A step of the method, compared with its equations on rows that repeat the prefix."""

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from tests.support import naive, tiny


def assert_a_step_matches(config: ModelConfig) -> None:
    """Compare rollout, evidence and gradient with rows that repeat the prefix for every thought.

    Micro-batches of 6 cut the groups of 4 thoughts.
    """
    words, settings = tiny.words(config), tiny.rlp_settings(prompt=(14, 5), update_micro_batch=6)
    theta, batch = tiny.params(config, 4), tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
    stage = tiny.rollout_stage(config, settings, words)
    rollout, reading = stage(theta, theta, batch, jax.random.key(3), jnp.int32(5))
    evidence = tiny.evidence_stage(config, settings, words)(theta, theta, batch, rollout, reading)
    thoughts = jax.tree.map(np.asarray, rollout.thoughts)
    rows = naive.write_out(
        [
            naive.Branch(
                batch.tokens[b].tolist(),
                int(reading.forks.position[b, n // settings.group_size]),
                thoughts.actions[b, n, : thoughts.length[b, n]].tolist(),
                settings.horizon,
            )
            for b, n in np.ndindex(*thoughts.length.shape)
        ],
        words,
        settings.thought_length,
        30,
        settings.prompt,
    )
    by_hand = naive.action_logprobs(theta, rows, config=config, vocabulary=words, temperature=1.0)
    recorded = thoughts.logprobs.reshape(by_hand.shape)
    np.testing.assert_allclose(recorded, by_hand, atol=1e-4)
    by_hand = naive.target_logprobs(theta, rows, config=config, vocabulary=words).sum(axis=1)
    np.testing.assert_allclose(np.ravel(evidence.reasoned), by_hand, rtol=1e-5, atol=1e-4)

    advantages = np.random.default_rng(0).normal(size=thoughts.length.shape)
    counted = np.ones_like(thoughts.closed)
    policy_gradient = tiny.policy_gradient(config, settings, words)
    (loss, _), gradient = policy_gradient(theta, rollout, advantages, counted)
    expected, expected_gradient = naive.surrogate(
        theta,
        rows,
        jnp.asarray(recorded),
        jnp.asarray(advantages, jnp.float32).ravel(),
        jnp.asarray(counted).ravel(),
        (rows.action_at > 0).sum(axis=1),
        config=config,
        vocabulary=words,
        temperature=1.0,
        clip=(settings.clip_low, settings.clip_high, settings.clip_dual),
        sequence=False,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    assert tiny.relative_error(gradient, expected_gradient) < 1e-4
