"""The gradient of an RLP update: one forward and backward of the trunk, branches in micro-batches.

    trunk      prefill, whose residuals are saved                    once per document
    branches   loss, gradients in theta and in the trunk's cache     one micro-batch at a time
    trunk      backward from the summed gradients of the cache       once per document

If all branches are one micro-batch and the layers are scanned, the three are one pass over trunk
and branches.

Only the activations of one micro-batch and of its trunks are in memory at a time. The sum is the
gradient of the whole batch for any size of micro-batch, since all weights of the loss are fixed
before the batch is split.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.cache import Cache
from models.config import ModelConfig
from models.transformer import Params, Transformer, bind, is_unrolled
from models.tree import Branches, Trunk, extend, forward_together, prefill
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch, split
from rlp.engine.rollout import Rollout
from rlp.engine.scoring import action_scores, predicted_tokens, token_scores
from rlp.engine.settings import RLPSettings
from rlp.engine.text_loss import text_loss
from rlp.objectives import equations
from rlp.objectives.registry import find
from rlp.objectives.surrogates import Actions

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class _Actions:
    """The inputs of the loss on branches."""

    branches: Branches  # slots 0 … O + L - 2; all W slots if the loss includes the target
    actions: jax.Array  # [B, N, L] int32
    behavior: jax.Array  # [B, N, L] nats, log pi_theta_old of the actions
    live: jax.Array  # [B, N, L] bool: actions that were taken
    weights: jax.Array  # [B, N, L], of each action in the mean over the whole batch
    advantages: jax.Array  # [B, N] or [B, N, L]
    reference: jax.Array | None  # [B, N, L] nats, log pi_ref; None without a KL term
    target: jax.Array | None  # [B, N, H] int32; None if the loss does not include it
    present: jax.Array | None  # [B, N, H] bool: target tokens that the document has
    target_weights: jax.Array | None  # [B, N], of each target in the mean over the whole batch


@flax.struct.dataclass
class _Text:
    """The inputs of the loss on documents."""

    trunk: Trunk  # [B, P + T]
    weights: jax.Array  # [B, P + T], of each predicted token in the mean over the whole batch


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
    """Return the loss of an update and its gradient in theta.

    The loss is the clipped surrogate (arXiv 2510.01265, eq. 5) plus `kl_weight` times the KL term,
    plus the weighted negative log-likelihood of the targets (mean over thoughts), plus
    `next_token_weight` times the next-token loss of the documents.

    Args:
      params: theta.
      model_config: of the network.
      settings: of the method.
      vocabulary: tags and banned ids.
      rollout: its trunk, branches and thoughts are read, its cache is not.
      advantages: [B, N], or [B, N, L] if they differ between the actions of a thought.
      counted: [B, N] bool, thoughts in the loss.
      reference: log pi_ref of every action, [B, N, L] nats; read if `kl_weight` is above 0.
      target_weights: of the target's evidence after every thought, [B, N]; None if the loss does
        not include the targets.
      micro_batch: at most this number of branches per backward pass, over all devices; 0 for all.
      shards: devices that split the documents.

    Returns:
      The loss, metrics by name (`kl`, entropies and losses in nats), and the gradient, a tree like
      `params`.
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
        behavior=thoughts.logprobs,
        live=live,
        weights=weights,
        advantages=advantages,
        reference=reference if settings.kl_weight else None,
        target=None,
        present=None,
        target_weights=None,
    )
    if target_weights is not None:
        actions = dataclasses.replace(
            actions,
            branches=rollout.branches,
            target=rollout.target,
            present=rollout.present,
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
    mean = lambda name: sums[name] / jnp.maximum(live.sum(), 1)
    counted_actions = jnp.maximum((weights > 0).sum(), 1)
    metrics = {name: total / counted_actions for name, total in sums["surrogate"].items()}
    metrics |= {"thought_entropy": mean("entropy"), "logprob_gap": mean("gap")}
    if settings.kl_weight:
        metrics["kl"] = mean("kl")
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
    """Return ((loss, sums), gradient) of some documents.

    Args:
      each_part: their branches, split into `parts` micro-batches along a leading axis.
    """

    if parts == 1 and not is_unrolled(model_config):
        actions = jax.tree.map(lambda x: x[0], each_part)
        return _together(params, model_config, settings, vocabulary, text, actions)

    weight = settings.next_token_weight

    def read(params: Params) -> tuple[Cache, jax.Array | None]:
        hidden, cache = prefill(bind(model_config, params), text.trunk)
        return cache, hidden if weight else None

    def branch_loss(params: Params, cache: Cache, actions: _Actions) -> tuple[jax.Array, Any]:
        model = bind(model_config, params)
        hidden, _ = extend(model, text.trunk, cache, actions.branches)
        return _branch_loss(model, settings, vocabulary, hidden, actions)

    def of_text(params: Params, hidden: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        loss = _next_token_loss(bind(model_config, params), text, hidden)
        return weight * loss, loss

    (cache, hidden), back = jax.vjp(read, params)
    slope = jax.value_and_grad(branch_loss, argnums=(0, 1), has_aux=True)
    (value, sums), (gradient, cache_gradient) = _summed(
        lambda actions: slope(params, cache, actions), each_part, parts
    )
    cache_gradient = jax.tree.map(lambda x, like: x.astype(like.dtype), cache_gradient, cache)
    # After the micro-batches, so that the gradient of the head is not in memory beside them.
    text_slope = jax.value_and_grad(of_text, argnums=(0, 1), has_aux=True)
    (_, next_token), (of_head, hidden_gradient) = text_slope(params, hidden)
    (through_trunk,) = back((cache_gradient, hidden_gradient))
    gradient = jax.tree.map(lambda x, y, z: x + y + z, gradient, of_head, through_trunk)
    return (value, sums | {"next_token": next_token}), gradient


def _together(
    params: Params,
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    text: _Text,
    actions: _Actions,
) -> tuple[tuple[jax.Array, Metrics], Params]:
    """Return what `_of_documents` returns, from one pass over trunk and branches: every weight is
    read once, and its gradient is one product. (Unrolled layers gain less than they lose: the last
    outputs of a trunk, which nothing reads, are not computed if the trunk has a pass of its own.)
    """

    def loss(params: Params) -> tuple[jax.Array, Any]:
        model = bind(model_config, params)
        of_text, hidden = forward_together(model, text.trunk, actions.branches)
        value, sums = _branch_loss(model, settings, vocabulary, hidden, actions)
        weighted = of_text if settings.next_token_weight else None
        next_token = _next_token_loss(model, text, weighted)
        total = value + settings.next_token_weight * next_token
        return total, (value, sums | {"next_token": next_token})

    (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return aux, gradient


def _next_token_loss(model: Transformer, text: _Text, hidden: jax.Array | None) -> jax.Array:
    """Return the next-token loss of documents, given their hidden states; 0 without these."""
    if hidden is None:
        return jnp.zeros(())
    return text_loss(model, text.trunk, hidden, text.weights)


def _branch_loss(
    model: Transformer,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    hidden: jax.Array,
    actions: _Actions,
) -> tuple[jax.Array, dict[str, Any]]:
    """Return the loss on branches and the sums of its metrics, given their hidden states."""
    objective = find(settings.objective)
    entropy = "entropy" in objective.reads
    scores = action_scores(
        model,
        hidden,
        actions.actions,
        vocabulary,
        settings.temperature,
        settings.min_thought_length,
        entropy_gradient=entropy,
    )
    advantages = actions.advantages
    acted = Actions(
        logprobs=scores.logprob,
        behavior=actions.behavior,
        advantages=advantages if advantages.ndim == 3 else advantages[..., None],
        live=actions.weights > 0,
        readings={"entropy": scores.entropy} if entropy else {},
        options=settings.options,
        objective=settings.objective,
    )
    losses, metrics = objective.surrogate(acted, settings)
    value = equations.weighted_sum(losses, actions.weights)
    total = lambda x, live: jnp.where(live, x, 0.0).sum()
    sums: dict[str, Any] = {
        "surrogate": {name: total(x, acted.live) for name, x in metrics.items()},
        "entropy": total(scores.entropy, actions.live),
        "gap": total(jnp.abs(scores.logprob - actions.behavior), actions.live),
    }
    if actions.reference is not None:
        kl = equations.reference_kl(scores.logprob, actions.reference, actions.live)
        value = value + settings.kl_weight * jnp.sum(actions.weights * kl)
        sums["kl"] = kl.sum()
    if actions.target is not None and actions.target_weights is not None:
        assert actions.present is not None
        last, present = hidden[:, :, -actions.target.shape[-1] :], actions.present
        after = token_scores(model, last, actions.target, vocabulary.not_in_documents)
        weights = equations.horizon_weights(present, settings.horizon_weighting, settings.discount)
        evidence = equations.evidence(after.logprob, weights)
        value = value - jnp.sum(actions.target_weights * evidence)
        sums["target"] = -equations.target_mean(after.logprob, present).sum()
    return value, sums


def _summed(run: Callable[[Any], Any], pieces: Any, count: int) -> Any:
    """Return the float32 sum of `run` over `count` pieces, which are stacked on a leading axis."""
    piece = lambda i: jax.tree.map(lambda x: x[i], pieces)
    if count == 1:
        return run(piece(0))
    wide = lambda x: jnp.promote_types(x.dtype, jnp.float32)
    shapes = jax.eval_shape(run, piece(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x)), shapes)
    add = lambda total, piece: (jax.tree.map(jnp.add, total, run(piece)), None)
    return jax.lax.scan(add, zeros, pieces)[0]
