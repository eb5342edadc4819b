"""Figures of a rollout, for the log: each a mean over branches, groups or decoded tokens."""

import jax
import jax.numpy as jnp

from rlp.rollout import Rollout
from rlp.step import Evidence, RLPSettings


def rollout_metrics(
    rollout: Rollout, evidence: Evidence, settings: RLPSettings
) -> dict[str, jax.Array]:
    """Figures of the rollout of a step."""
    thoughts, counted = rollout.thoughts, evidence.counted
    rewards = evidence.rewards
    spread = jnp.where(counted, evidence.advantages, 0.0)
    no_variance = jnp.all(jnp.abs(spread) < 1e-6, axis=-1)
    metrics = {
        "reward_mean": rewards.mean(),
        "reward_positive_share": (rewards > 0).mean(),
        "reasoned_evidence": evidence.reasoned.mean(),
        "advantage_std": evidence.advantages.std(),
        "zero_variance_share": no_variance.mean(),
        "thought_length": thoughts.length.mean(),
        "closed_fraction": thoughts.closed.mean(),
        "distinct_thoughts": distinct_share(thoughts.actions, settings.group_size),
        "no_think_loss": evidence.no_think.mean(),
        "decode_use": thoughts.length.sum() / rollout.decoded,
    }
    if evidence.unselected is not None:
        metrics["no_think_loss_unselected"] = evidence.unselected.mean()
    if settings.baseline != "none":
        metrics["baseline_evidence"] = evidence.baseline.mean()
        metrics["information_gain"] = evidence.gain.mean()
    return metrics


def distinct_share(actions: jax.Array, group: int) -> jax.Array:
    """Mean share of thoughts in a group that no earlier thought of the group equals, in (0, 1]."""
    groups = actions.reshape(-1, group, actions.shape[-1])
    equal = jnp.all(groups[:, :, None] == groups[:, None, :], axis=-1)
    seen = jnp.any(jnp.tril(equal, -1), axis=-1)
    return 1 - seen.mean()
