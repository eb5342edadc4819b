"""The state of training, and the stages that change it."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.sharding import shards
from models.transformer import Params, bind
from rlp.data.batch import Batch
from rlp.engine.branches import Vocabulary, document_trunk
from rlp.engine.gradient import Metrics, policy_gradient
from rlp.engine.microbatching import split
from rlp.engine.optimizer import Optimizer
from rlp.engine.rollout import Rollout
from rlp.engine.scoring import document_scores, learnt_tokens
from rlp.engine.settings import RLPSettings
from rlp.engine.step.thinking import Evidence
from rlp.objectives import equations


@flax.struct.dataclass
class TrainState:
    """Everything that a restart needs, besides the data position."""

    step: jax.Array  # int32, rollouts or next-token steps taken
    params: Params  # theta
    optimizer: Any
    baseline: Params | None  # phi, float32
    reference: Params | None  # pi_ref, float32: theta as it was at the start
    skipped: jax.Array  # int32, updates skipped because loss or gradient was not finite
    skipped_in_row: jax.Array  # int32, the same since the last good update

    def trained(self) -> "TrainState":
        """All but the networks beside theta, which take no part in an update."""
        return dataclasses.replace(self, baseline=None, reference=None)


def new_state(
    params: Params, optimizer: Optimizer, baseline: bool, reference: bool = False
) -> TrainState:
    """The state before the first step. phi starts as a copy of theta, and so does a reference."""
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
    """One optimizer update on a minibatch of a rollout; does not advance `step` or phi (see
    `finish_step`).

    Args:
      trained: the state; without phi and the reference, which are not read.
      minibatch: as of `minibatch_gradient`.
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
    """Return loss, metrics and gradient of a minibatch of a rollout.

    Args:
      minibatch: its number. Each has the documents that many apart, so that every device has its
        share of each, and a loss that is the mean over its own thoughts.
    """
    if settings.minibatches > 1:
        gone: Any = None
        bare = dataclasses.replace(rollout.without_cache(), decoded=gone)
        each = lambda x: split(x, settings.minibatches)
        chosen = lambda x: jax.lax.dynamic_index_in_dim(each(x), minibatch, keepdims=False)
        rollout, evidence = jax.tree.map(chosen, (bare, evidence))
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
    """Counts the step and moves phi towards theta."""
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
    """One update on the mean next-token loss of packed rows, nats per predicted token; with a
    `loss_mask`, of its tokens alone.

    Returns:
      The state, metrics, and the number of tokens of documents.
    """
    value, metrics, gradient = next_token_gradient(model_config, state.params, batch)
    state, metrics = _apply(value, metrics, gradient, optimizer, state)
    state = dataclasses.replace(state, step=state.step + 1)
    return state, metrics, (batch.segment > 0).sum()


def next_token_gradient(
    model_config: ModelConfig, params: Params, batch: Batch
) -> tuple[jax.Array, Metrics, Params]:
    """Return the mean next-token loss of packed rows, its metrics and its gradient."""
    trunk = document_trunk(batch)
    learnt = learnt_tokens(trunk, batch.loss_mask)

    def loss(params):
        scores = document_scores(bind(model_config, params), trunk)
        total = jnp.where(learnt, scores.logprob, 0.0).sum()
        mean = -total / jnp.maximum(learnt.sum(), 1)
        return mean, {"no_think_loss": mean}

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return value, metrics, gradient


def next_token_losses(model_config: ModelConfig, params: Params, batch: Batch) -> jax.Array:
    """The summed next-token loss of every row, [B] nats."""
    trunk = document_trunk(batch)
    scores = document_scores(bind(model_config, params), trunk)
    return -jnp.where(learnt_tokens(trunk, batch.loss_mask), scores.logprob, 0.0).sum(axis=-1)


def _apply(
    value: jax.Array,
    metrics: Metrics,
    gradients: Params,
    optimizer: Optimizer,
    state: TrainState,
) -> tuple[TrainState, Metrics]:
    """The optimizer's update, and the metrics with loss and gradient norm.

    A loss, gradient or new parameter that is not finite leaves the state as it was.
    """
    params, new_optimizer, norm = optimizer.apply(gradients, state.optimizer, state.params)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
    good = jnp.isfinite(value) & jnp.isfinite(norm) & jnp.stack(finite).all()
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
    state = dataclasses.replace(
        state,
        params=keep(params, state.params),
        optimizer=keep(new_optimizer, state.optimizer),
        skipped=state.skipped + ~good,
        skipped_in_row=jnp.where(good, 0, state.skipped_in_row + 1),
    )
    return state, metrics | {"loss": value, "grad_norm": norm}
