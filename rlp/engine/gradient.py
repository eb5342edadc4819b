"""The gradient of an RLP update: one trunk forward and backward, branches in micro-batches.

    trunk      prefill, its linearization kept                       once per document
    branches   loss and gradient, in theta and in the trunk's cache  one micro-batch at a time
    trunk      backward, from the sum of the cache's gradients       once per document

Activations of one micro-batch and of the trunk are alive at a time. The sum is the gradient of the
whole batch, whatever the micro-batch: every weight in the loss is fixed before the batch is cut.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.cache import Cache
from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Branches, Trunk, prefill
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch, split
from rlp.engine.rollout import Rollout
from rlp.engine.scoring import action_scores, branch_scores, predicted_tokens, token_scores
from rlp.engine.settings import RLPSettings
from rlp.objectives import equations
from rlp.objectives.registry import find
from rlp.objectives.surrogates import Actions

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class _Actions:
    """What the loss reads of some branches."""

    branches: Branches  # slots that predict actions, and those before; all W to learn the target
    actions: jax.Array  # [B, N, L]
    behaviour: jax.Array  # [B, N, L] nats
    live: jax.Array  # [B, N, L] bool
    weights: jax.Array  # [B, N, L], of the whole batch's mean
    advantages: jax.Array  # [B, N] or [B, N, L]
    reference: jax.Array | None  # [B, N, L] nats; None without a KL term
    target: jax.Array | None  # [B, N, H] int32; None where the target is not learnt
    target_weights: jax.Array | None  # [B, N], of the whole batch's mean


@flax.struct.dataclass
class _Text:
    """What the loss reads of some documents."""

    trunk: Trunk
    weights: jax.Array  # [B, T], of every predicted token in the whole batch's mean


def policy_gradient(
    params: Params,
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    rollout: Rollout,
    advantages: jax.Array,
    counted: jax.Array,
    reference: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    micro_batch: int = 0,
    shards: int = 1,
) -> tuple[jax.Array, Metrics, Params]:
    """Eq. 5, with `kl_weight` times the KL term, the weighted negative log-likelihood of the
    targets after their thoughts (mean over thoughts), and `next_token_weight` times the documents'
    next-token loss; and its gradient.

    Args:
      params: theta.
      settings: of the settings.
      rollout: its trunk, branches and thoughts; the cache is not used.
      advantages: [B, N], or [B, N, L] where they differ between the actions of a thought.
      counted: [B, N].
      reference: log pi_ref of every action, [B, N, L] nats; read where `kl_weight` is above 0.
      target_weights: of the target's evidence after every thought, [B, N]; None learns no target.
      micro_batch: most branches in one backward pass; 0 for all.
      shards: devices that split the documents.

    Returns:
      The loss, figures of the pass, and the gradient.
    """
    thoughts = rollout.thoughts
    documents, branches, limit = thoughts.actions.shape
    live = jnp.arange(limit)[None, None, :] < thoughts.length[..., None]
    weights = equations.action_weights(
        thoughts.length, counted, limit, settings.length_normalization
    )
    slots = len(vocabulary.think_open) - 1 + limit
    actions = _Actions(
        branches=rollout.branches.slots(0, slots),
        actions=thoughts.actions,
        behaviour=thoughts.logprobs,
        live=live,
        weights=weights,
        advantages=advantages,
        reference=reference if settings.kl_weight else None,
        target=None,
        target_weights=None,
    )
    if target_weights is not None:
        actions = dataclasses.replace(
            actions,
            branches=rollout.branches,
            target=rollout.target,
            target_weights=target_weights / thoughts.length.size,
        )
    trunk = rollout.trunk
    predicted = predicted_tokens(trunk) & (trunk.position >= settings.first_predicted)
    text = _Text(trunk, predicted / jnp.maximum(predicted.sum(), 1))

    rows, columns = largest_batch(
        documents, branches, 1, micro_batch, shards, "rlp.update_micro_batch"
    )
    batches, parts = documents // rows, branches // columns
    each_batch = jax.tree.map(lambda x: split(x, batches), (text, actions))

    def of_documents(inputs: tuple[_Text, _Actions]) -> Any:
        text, actions = inputs
        each_part = jax.tree.map(lambda x: split(x, parts, axis=1), actions)
        return _of_documents(params, model_config, settings, vocabulary, text, each_part, parts)

    (value, sums), gradient = _summed(of_documents, each_batch, batches)
    share = lambda name, of: sums[name] / jnp.maximum(of.sum(), 1)
    counted_actions = jnp.maximum((weights > 0).sum(), 1)
    metrics = {name: total / counted_actions for name, total in sums["figures"].items()}
    metrics |= {
        "thought_entropy": share("entropy", live),
        "logprob_gap": share("gap", live),
    }
    if settings.kl_weight:
        metrics["kl"] = share("kl", live)
    if target_weights is not None:
        metrics["target_loss"] = sums["target"] / thoughts.length.size
    if settings.next_token_weight:
        metrics["next_token_loss"] = sums["next_token"]
        value = value + settings.next_token_weight * sums["next_token"]
    return value, metrics, gradient


def _of_documents(
    params: Params,
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    text: _Text,
    each_part: _Actions,
    parts: int,
) -> tuple[tuple[jax.Array, Metrics], Params]:
    """((loss, sums), gradient) of some documents; `each_part` holds their branches in parts."""

    def read(params: Params) -> tuple[Cache, jax.Array]:
        model = bind(model_config, params)
        hidden, cache = prefill(model, text.trunk)
        if not settings.next_token_weight:
            return cache, jnp.zeros(())
        scores = token_scores(model, hidden[:, :-1], text.trunk.tokens[:, 1:])
        return cache, -jnp.sum(scores.logprob * text.weights[:, 1:])

    (cache, next_token), back = jax.vjp(read, params)

    def branch_loss(params: Params, cache: Cache, actions: _Actions) -> tuple[jax.Array, Any]:
        acting = bind(model_config, params), text.trunk, cache, actions.branches, actions.actions
        after, objective = None, find(settings.objective)
        entropy = "entropy" in objective.reads
        if actions.target is None:
            scores = action_scores(
                *acting, vocabulary, settings.temperature, entropy_gradient=entropy
            )
        else:
            scores, after = branch_scores(
                *acting,
                actions.target,
                vocabulary,
                settings.temperature,
                entropy_gradient=entropy,
            )
        advantages = actions.advantages
        seen = Actions(
            logprobs=scores.logprob,
            behaviour=actions.behaviour,
            advantages=advantages if advantages.ndim == 3 else advantages[..., None],
            live=actions.weights > 0,
            readings={"entropy": scores.entropy} if entropy else {},
            options=settings.options,
            objective=settings.objective,
        )
        losses, figures = objective.surrogate(seen, settings)
        value = equations.weighted_sum(losses, actions.weights)
        total = lambda x: jnp.where(actions.live, x, 0.0).sum()
        sums: dict[str, Any] = {
            "figures": {name: jnp.where(seen.live, x, 0.0).sum() for name, x in figures.items()},
            "entropy": total(scores.entropy),
            "gap": total(jnp.abs(scores.logprob - actions.behaviour)),
        }
        if actions.reference is not None:
            kl = equations.reference_kl(scores.logprob, actions.reference, actions.live)
            value = value + settings.kl_weight * jnp.sum(actions.weights * kl)
            sums["kl"] = kl.sum()
        if after is not None and actions.target_weights is not None:
            horizon = after.logprob.shape[-1]
            weights = equations.horizon_weights(
                horizon, settings.horizon_weighting, settings.discount
            )
            evidence = equations.evidence(after.logprob, weights)
            value = value - jnp.sum(actions.target_weights * evidence)
            sums["target"] = -after.logprob.mean(axis=-1).sum()
        return value, sums

    slope = jax.value_and_grad(branch_loss, argnums=(0, 1), has_aux=True)
    found = _summed(lambda actions: slope(params, cache, actions), each_part, parts)
    (value, sums), (gradient, cache_gradient) = found
    cache_gradient = jax.tree.map(lambda x, like: x.astype(like.dtype), cache_gradient, cache)
    (through_trunk,) = back((cache_gradient, jnp.float32(settings.next_token_weight)))
    gradient = jax.tree.map(jnp.add, gradient, through_trunk)
    return (value, sums | {"next_token": next_token}), gradient


def _summed(run: Callable[[Any], Any], pieces: Any, count: int) -> Any:
    """The sum, in float32, of what `run` gives for each of `count` pieces, stacked in front."""
    piece = lambda i: jax.tree.map(lambda x: x[i], pieces)
    if count == 1:
        return run(piece(0))
    wide = lambda x: jnp.promote_types(x.dtype, jnp.float32)
    shapes = jax.eval_shape(run, piece(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x)), shapes)
    add = lambda total, piece: (jax.tree.map(jnp.add, total, run(piece)), None)
    return jax.lax.scan(add, zeros, pieces)[0]
