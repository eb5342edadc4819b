"""What the host receives of a rollout: metrics, token counts, and the tokens of responses.

Metrics are means over branches, groups or decoded tokens.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Batch
from rlp.engine.branches import Thoughts, Vocabulary
from rlp.engine.rollout import Rollout
from rlp.engine.step import Evidence, RLPSettings
from rlp.objectives.outcome import Answers


def metrics_stage(
    settings: RLPSettings, vocabulary: Vocabulary, rollout: Rollout, evidence: Evidence
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Return the metrics of a rollout by name, and the token counts that its cost depends on."""
    prompts = rollout.trunk.tokens.shape[0] * len(settings.prompt)
    counts = {
        "documents": (rollout.trunk.segment > 0).sum() - prompts,
        "rollout": rollout.thoughts.length.sum(),
        "decoded": rollout.decoded,
    }
    return rollout_metrics(rollout, evidence, settings, vocabulary), counts


def responses_stage(
    vocabulary: Vocabulary, rollout: Rollout, batch: Batch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what the host grades: actions [B, N, L], the number of them without the end token
    [B, N], and the indices of the problems [B]."""
    thoughts = rollout.thoughts
    return thoughts.actions, thoughts.words(vocabulary), jnp.asarray(batch.index)


def rollout_metrics(
    rollout: Rollout, evidence: Evidence, settings: RLPSettings, vocabulary: Vocabulary
) -> dict[str, jax.Array]:
    """Return the metrics of a rollout by name; all are nan if a log-probability of a sampled action
    is not finite, since the samples are then meaningless."""
    metrics = _metrics(rollout, evidence, settings, vocabulary)
    finite = jnp.isfinite(rollout.thoughts.logprobs).all()
    return {name: jnp.where(finite, value, jnp.nan) for name, value in metrics.items()}


def _metrics(
    rollout: Rollout, evidence: Evidence, settings: RLPSettings, vocabulary: Vocabulary
) -> dict[str, jax.Array]:
    thoughts, counted = rollout.thoughts, evidence.counted
    rewards = evidence.rewards
    spread = jnp.where(counted, evidence.advantages, 0.0)
    no_variance = jnp.all(jnp.abs(spread) < 1e-6, axis=-1)
    metrics = {
        "reward_mean": rewards.mean(),
        "reward_positive_share": (rewards > 0).mean(),
        "advantage_std": evidence.advantages.std(),
        "zero_variance_share": no_variance.mean(),
        "thought_length": thoughts.length.mean(),
        "closed_fraction": thoughts.closed.mean(),
        "distinct_thoughts": distinct_share(thoughts.actions, settings.group_size),
        "decode_use": thoughts.length.sum() / rollout.decoded,
    }
    if evidence.narrow is not None:
        metrics["narrow_groups_share"] = evidence.narrow.mean()
    metrics |= {name: values.mean() for name, values in evidence.metrics.items()}
    if evidence.answers is not None:
        return metrics | _answer_metrics(evidence.answers, evidence.planning, thoughts)
    metrics |= {
        "reasoned_evidence": evidence.reasoned.mean(),
        "target_named_share": names_target(
            thoughts.actions, thoughts.words(vocabulary), rollout.target, rollout.present
        ).mean(),
        "no_think_loss": evidence.no_think.mean(),
    }
    if evidence.in_band is not None:
        metrics["in_band_share"] = evidence.in_band.mean()
    if evidence.unselected is not None:
        metrics["no_think_loss_unselected"] = evidence.unselected.mean()
    if settings.baseline != "none":
        metrics["baseline_evidence"] = evidence.baseline.mean()
        metrics["information_gain"] = evidence.gain.mean()
    return metrics


def _answer_metrics(
    answers: Answers, planning: jax.Array | None, responses: Thoughts
) -> dict[str, jax.Array]:
    """Return the metrics of responses; a majority is correct if a response in it is correct."""
    majority_correct = (answers.agrees & answers.correct).any(axis=-1)
    metrics = {
        "accuracy": answers.correct.mean(),
        "majority_accuracy": majority_correct.mean(),
        "answered_share": answers.given.mean(),
        "failed_checks_share": answers.failed.mean(),
        "stated_confidence_share": (~jnp.isnan(answers.confidence)).mean(),
    }
    if planning is not None:
        metrics["planning_share"] = planning.sum() / responses.length.sum()
    return metrics


def distinct_share(actions: jax.Array, group: int) -> jax.Array:
    """Return the mean share of thoughts that differ from all earlier ones of their group, (0, 1].

    Args:
      actions: [B, N, L] int32.
      group: G.
    """
    groups = actions.reshape(-1, group, actions.shape[-1])
    equal = jnp.all(groups[:, :, None] == groups[:, None, :], axis=-1)
    seen = jnp.any(jnp.tril(equal, -1), axis=-1)
    return 1 - seen.mean()


def names_target(
    actions: jax.Array, words: jax.Array, target: jax.Array, present: jax.Array
) -> jax.Array:
    """Return whether thoughts contain the whole target as consecutive tokens, [B, N] bool.

    Args:
      actions: [B, N, L] int32.
      words: [B, N] int32, number of actions without the closing tag.
      target: [B, N, H] int32.
      present: [B, N, H] bool, target tokens that the document has.
    """
    limit, horizon = actions.shape[-1], target.shape[-1]
    named = jnp.arange(limit)[None, None, :] <= (words - present.sum(axis=-1))[..., None]
    after = jnp.pad(actions, ((0, 0), (0, 0), (0, horizon)))
    for h in range(min(horizon, limit)):
        same = after[..., h : h + limit] == target[..., h, None]
        named &= same | ~present[..., h, None]
    return named.any(axis=-1)
