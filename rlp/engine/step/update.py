"""The training state, and the stages that update it."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from models.config import ModelConfig
from models.sharding import shards
from models.transformer import Params, bind
from models.tree import forward
from rlp.data.batch import Batch
from rlp.engine.branches import Vocabulary, document_trunk
from rlp.engine.gradient import Metrics, policy_gradient
from rlp.engine.microbatching import split
from rlp.engine.optimizer import Optimizer
from rlp.engine.rollout import Rollout
from rlp.engine.scoring import document_scores, loss_tokens
from rlp.engine.settings import RLPSettings
from rlp.engine.step.thinking import Evidence
from rlp.engine.text_loss import text_loss
from rlp.objectives import equations


@flax.struct.dataclass
class TrainState:
    """All arrays of a checkpoint: everything that a resumed run needs but the data position."""

    step: jax.Array  # int32, number of steps taken (rollouts, or next-token updates)
    params: Params  # theta
    optimizer: Any
    baseline: Params | None  # phi, float32
    reference: Params | None  # pi_ref, float32: theta at the start of the run
    skipped: jax.Array  # int32, updates skipped because loss, gradient or result was not finite
    skipped_in_row: jax.Array  # int32, consecutive skipped updates up to now

    def trained(self) -> "TrainState":
        """Return the state without phi and pi_ref, which an update does not read."""
        return dataclasses.replace(self, baseline=None, reference=None)


def new_state(
    params: Params, optimizer: Optimizer, baseline: bool, reference: bool = False
) -> TrainState:
    """Return the state before the first step; phi and pi_ref, if wanted, are copies of theta."""
    copy = lambda wanted: jax.tree.map(jnp.copy, params) if wanted else None
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero(),
        params=params,
        optimizer=optimizer.init(params),
        baseline=copy(baseline),
        reference=copy(reference),
        skipped=zero(),
        skipped_in_row=zero(),
    )


def update_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    optimizer: Optimizer,
    trained: TrainState,
    rollout: Rollout,
    evidence: Evidence,
    minibatch: jax.Array | int = 0,
) -> tuple[TrainState, Metrics]:
    """Take an optimizer update on a minibatch of a rollout (eq. 5).

    `step` and phi are updated by `finish_step`.

    Args:
      trained: the state without phi and pi_ref.
      rollout, evidence, minibatch: as in `minibatch_gradient`.

    Returns:
      The new state, and the metrics of the update.
    """
    value, metrics, gradient = minibatch_gradient(
        model_config, settings, vocabulary, trained.params, rollout, evidence, minibatch
    )
    return _apply(value, metrics, gradient, optimizer, trained)


def minibatch_gradient(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    rollout: Rollout,
    evidence: Evidence,
    minibatch: jax.Array | int = 0,
) -> tuple[jax.Array, Metrics, Params]:
    """Return loss, metrics and gradient of a minibatch of a rollout (eq. 5).

    Args:
      params: theta.
      rollout, evidence: of all documents of the step.
      minibatch: index of the minibatch. It has every `rlp.minibatches`-th document, so that every
        device has a share of it; its loss is the mean over its thoughts.
    """
    if settings.minibatches > 1:
        gone: Any = None
        bare = dataclasses.replace(rollout.without_cache(), decoded=gone)
        parts = lambda x: split(x, settings.minibatches)
        part = lambda x: jax.lax.dynamic_index_in_dim(parts(x), minibatch, keepdims=False)
        rollout, evidence = jax.tree.map(part, (bare, evidence))
    flat = lambda x: x.reshape(x.shape[0], -1)
    advantages = flat(evidence.advantages)
    if evidence.planning is not None:
        weight = settings.planning_weight
        advantages = equations.planning_advantages(advantages, evidence.planning, weight)
    return policy_gradient(
        params,
        model_config,
        settings,
        vocabulary,
        rollout,
        advantages,
        flat(evidence.counted),
        evidence.reference,
        None if evidence.target_weights is None else flat(evidence.target_weights),
        micro_batch=settings.update_micro_batch,
        shards=shards("rows"),
    )


def finish_step(settings: RLPSettings, state: TrainState) -> TrainState:
    """Count the step, and update phi as an exponential moving average of theta."""
    baseline = state.baseline
    if settings.baseline == "ema":
        baseline = jax.tree.map(
            lambda phi, theta: equations.ema(phi, theta, settings.ema_decay),
            baseline,
            state.params,
        )
    return dataclasses.replace(state, step=state.step + 1, baseline=baseline)


def next_token_stage(
    model_config: ModelConfig,
    optimizer: Optimizer,
    state: TrainState,
    batch: Batch,
) -> tuple[TrainState, Metrics, jax.Array]:
    """Take an update on the mean next-token loss of packed rows, in nats per predicted token.

    Args:
      batch: [B, T]; a `loss_mask` restricts the mean to its tokens.

    Returns:
      The new state, metrics, and the number of document tokens in the batch, without padding.
    """
    value, metrics, gradient = next_token_gradient(model_config, state.params, batch)
    state, metrics = _apply(value, metrics, gradient, optimizer, state)
    state = dataclasses.replace(state, step=state.step + 1)
    return state, metrics, (batch.segment > 0).sum()


def next_token_gradient(
    model_config: ModelConfig, params: Params, batch: Batch
) -> tuple[jax.Array, Metrics, Params]:
    """Return the mean next-token loss of packed rows, in nats per token, metrics and gradient."""
    trunk = document_trunk(batch)
    in_loss = loss_tokens(trunk, batch.loss_mask)
    weights = in_loss / jnp.maximum(in_loss.sum(), 1)

    def loss(params):
        model = bind(model_config, params)
        mean = text_loss(model, trunk, forward(model, trunk), weights)
        return mean, {"no_think_loss": mean}

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return value, metrics, gradient


def next_token_losses(model_config: ModelConfig, params: Params, batch: Batch) -> jax.Array:
    """Return the summed next-token loss of every row, [B] nats."""
    trunk = document_trunk(batch)
    scores = document_scores(bind(model_config, params), trunk)
    return -jnp.where(loss_tokens(trunk, batch.loss_mask), scores.logprob, 0.0).sum(axis=-1)


def _apply(
    value: jax.Array,
    metrics: Metrics,
    gradients: Params,
    optimizer: Optimizer,
    state: TrainState,
) -> tuple[TrainState, Metrics]:
    """Apply the gradients, and add loss and gradient norm to the metrics.

    The update is skipped if the loss, the gradient norm or a new parameter is not finite. All of
    this is known before the update, which can thus replace the old state in place.
    """
    norm = optax.tree.norm(gradients)
    apply = functools.partial(optimizer.apply, norm=norm)
    inputs = gradients, state.optimizer, state.params
    good = jnp.isfinite(value) & jnp.isfinite(norm)
    if optimizer.can_overflow:
        # The barrier keeps the compiler from storing these parameters for the update below.
        params, _ = apply(*jax.lax.optimization_barrier(inputs))
        good &= jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
    keep = lambda _, optimizer, params: (params, optimizer)
    params, new_optimizer = jax.lax.cond(good, apply, keep, *inputs)
    state = dataclasses.replace(
        state,
        params=params,
        optimizer=new_optimizer,
        skipped=state.skipped + ~good,
        skipped_in_row=jnp.where(good, 0, state.skipped_in_row + 1),
    )
    return state, metrics | {"loss": value, "grad_norm": norm}
