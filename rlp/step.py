"""One training step: Algorithm 1 of the paper, and next-token training, on one state.

An RLP step is a chain of jitted stages, so that each can be timed and none is computed twice:

    read       forks are chosen, documents read by theta       a wave of documents
    rollout    G thoughts at each fork                          a wave of their forks
    no-think   S_ema, one pass per document for all its forks   a wave of documents
    evidence   S_pred on the rollout's caches, advantages       a wave of their forks
    reference  log pi_ref of the actions, for a KL term         the whole batch, in waves
    update     clipped surrogate, optimizer                     the whole batch, in micro-batches

Waves bound the caches that are alive; with enough memory there is one. theta is that of before the
update in all stages but the last; phi moves to it at the end of the step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import forward
from rlp.branches import Forks, Vocabulary, document_trunk, make_forks
from rlp.data.batch import Batch
from rlp.gradient import Loss, Metrics, policy_gradient
from rlp.objective import equations
from rlp.optimizer import Optimizer
from rlp.positions import select_forks
from rlp.reference import reference_logprobs
from rlp.rollout import (
    Documents,
    Rollout,
    document_keys,
    fork_keys,
    read_documents,
    roll_out,
    thought_uniforms,
)
from rlp.scoring import document_scores, no_think_scores, predicted_tokens, reasoned_scores


@dataclasses.dataclass(frozen=True)
class RLPSettings:
    """The numbers of the method; `configs/default.py` explains each, under `rlp`."""

    group_size: int
    forks_per_document: int
    thought_length: int
    horizon: int
    horizon_weighting: str
    discount: float
    temperature: float
    positions: str
    min_prefix: int
    prompt: tuple[int, ...]  # token ids
    baseline: str
    ema_decay: float
    clip_low: float
    clip_high: float
    updates_per_rollout: int
    unclosed: str
    unclosed_penalty: float
    length_normalization: str
    kl_weight: float
    next_token_weight: float
    max_branches_in_flight: int
    update_micro_batch: int
    rollout_layout: str
    baseline_memory: str

    @property
    def keeps_reference(self) -> bool:
        """Whether a state holds a reference: for a KL term, unless a phi that never moves is it."""
        return self.kl_weight > 0 and self.baseline != "frozen"


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


@flax.struct.dataclass
class Reading:
    """Documents with their forks, read by theta and ready for thoughts."""

    documents: Documents
    forks: Forks  # [B, K]
    keys: jax.Array  # [B] PRNG keys, one per document and step


@flax.struct.dataclass
class NoThink:
    """How likely the targets are without a thought, [B, K]."""

    policy: jax.Array  # mean over the target, nats per token, of theta
    baseline: jax.Array  # S_ema in nats; 0 when there is no baseline


@flax.struct.dataclass
class Evidence:
    """What the thoughts of a rollout are worth. Nats; N = K · G."""

    reasoned: jax.Array  # [B, K, G], S_pred
    baseline: jax.Array  # [B, K], S_ema; 0 when there is no baseline
    gain: jax.Array  # [B, K, G]
    rewards: jax.Array  # [B, K, G]
    advantages: jax.Array  # [B, K, G]
    counted: jax.Array  # [B, K, G] bool: thoughts in the group's mean and in the loss
    no_think: jax.Array  # [B, K], nats per target token, of theta
    reference: jax.Array | None = None  # [B, N, L], log pi_ref of the actions, for a KL term


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


def read_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    scorer: Params,
    batch: Batch,
    key: jax.Array,
    step: jax.Array | int,
) -> Reading:
    """Chooses the forks of documents and prefills them.

    Args:
      params: theta.
      scorer: parameters whose no-think loss or entropy ranks positions, when the rule asks.
      batch: rows of one document each, [B, T].
      key: root PRNG key of the run.
      step: of the run.
    """
    keys = document_keys(key, step, batch.index)
    s = settings
    scores = None
    if s.positions in ("loss", "entropy"):
        found = document_scores(bind(model_config, scorer), document_trunk(batch), vocabulary)
        scores = -found.logprob if s.positions == "loss" else found.entropy
    fork = select_forks(
        s.positions,
        fork_keys(keys),
        (batch.segment > 0).sum(axis=-1),
        s.forks_per_document,
        limit=batch.tokens.shape[1],
        min_prefix=s.min_prefix,
        horizon=s.horizon,
        scores=scores,
        given=batch.forks,
    )
    documents = read_documents(bind(model_config, params), document_trunk(batch, s.prompt))
    return Reading(documents=documents, forks=make_forks(batch, fork, s.horizon), keys=keys)


def no_think_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    baseline: Params | None,
    batch: Batch,
    reading: Reading,
) -> NoThink:
    """Scores the targets of all forks without thoughts, in one pass per document and network."""
    s, forks, documents = settings, reading.forks, document_trunk(batch)

    def score(params, hidden=None):
        model = bind(model_config, params)
        hidden = forward(model, documents) if hidden is None else hidden
        return no_think_scores(model, hidden, forks.position, forks.target, vocabulary).logprob

    # Without a prompt the reading is the policy's no-think pass.
    policy = score(params, None if s.prompt else reading.documents.hidden)
    if baseline is None:
        base = jnp.zeros(forks.position.shape, jnp.float32)
    else:
        weights = equations.horizon_weights(s.horizon, s.horizon_weighting, s.discount)
        base = equations.evidence(score(baseline), weights)
    return NoThink(policy=policy.mean(axis=-1), baseline=base)


def rollout_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    reading: Reading,
    first: jax.Array | int = 0,
    forks: int | None = None,
) -> Rollout:
    """Samples G thoughts at each of `forks` forks of every document, None for all, from `first`."""
    s = settings
    forks = s.forks_per_document if forks is None else forks
    uniforms = thought_uniforms(reading.keys, first, forks, s.group_size, s.thought_length)
    return roll_out(
        bind(model_config, params),
        reading.documents,
        _some(reading.forks, first, forks),
        uniforms,
        prompt_length=len(s.prompt),
        temperature=s.temperature,
        vocabulary=vocabulary,
    )


def evidence_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    reading: Reading,
    no_think: NoThink,
    rollout: Rollout,
    first: jax.Array | int = 0,
) -> Evidence:
    """Scores the targets after the thoughts of a wave, and turns gains into advantages.

    Args:
      first: the document's fork with which the rollout begins.
    """
    s = settings
    forks = rollout.thoughts.length.shape[1] // s.group_size
    wave, no_think = _some((reading.forks, no_think), first, forks)
    grouped = lambda x: x.reshape(x.shape[0], forks, s.group_size, *x.shape[2:])
    found = reasoned_scores(
        bind(model_config, params),
        rollout.trunk,
        reading.documents.cache,
        rollout.branches,
        rollout.branch_cache,
        jnp.repeat(wave.target, s.group_size, axis=1),
        vocabulary,
    )
    weights = equations.horizon_weights(s.horizon, s.horizon_weighting, s.discount)
    reasoned = equations.evidence(grouped(found.logprob), weights)
    gain = equations.information_gain(reasoned, no_think.baseline)
    closed = grouped(rollout.thoughts.closed)
    rewards = equations.rewards(gain, closed, s.unclosed, s.unclosed_penalty)
    counted = equations.counted_thoughts(closed, s.unclosed)
    return Evidence(
        reasoned=reasoned,
        baseline=no_think.baseline,
        gain=gain,
        rewards=rewards,
        advantages=equations.group_advantages(rewards, counted),
        counted=counted,
        no_think=-no_think.policy,
    )


def reference_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    reference: Params,
    rollout: Rollout,
    *,
    shards: int = 1,
) -> jax.Array:
    """log pi_ref of all actions of a rollout, [B, N, L] nats, in the sampler's measure.

    Args:
      rollout: of all waves; its cache is not used.
      shards: devices that split the documents.
    """
    return reference_logprobs(
        bind(model_config, reference),
        rollout,
        vocabulary,
        settings.temperature,
        max_branches=settings.max_branches_in_flight,
        shards=shards,
    )


def _some(of_forks: Any, first: jax.Array | int, forks: int) -> Any:
    """`forks` forks of every document from `first` on, of arrays [B, K, …]."""
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, forks, axis=1)
    return jax.tree.map(cut, of_forks)


def loss_numbers(settings: RLPSettings) -> Loss:
    """The settings that the gradient reads."""
    s = settings
    return Loss(
        temperature=s.temperature,
        clip_low=s.clip_low,
        clip_high=s.clip_high,
        length_normalization=s.length_normalization,
        kl_weight=s.kl_weight,
        next_token_weight=s.next_token_weight,
        prompt_length=len(s.prompt),
    )


def update_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    optimizer: Optimizer,
    state: TrainState,
    rollout: Rollout,
    evidence: Evidence,
    *,
    shards: int = 1,
) -> tuple[TrainState, Metrics]:
    """One optimizer update on a rollout; does not advance `step` or phi (see `finish_step`).

    Args:
      shards: devices that split the documents.
    """
    flat = lambda x: x.reshape(x.shape[0], -1)
    value, metrics, gradient = policy_gradient(
        state.params,
        model_config,
        loss_numbers(settings),
        vocabulary,
        rollout,
        flat(evidence.advantages),
        flat(evidence.counted),
        evidence.reference,
        micro_batch=settings.update_micro_batch,
        shards=shards,
    )
    return _apply(value, metrics, gradient, optimizer, state)


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
) -> tuple[TrainState, Metrics]:
    """One update on the mean next-token loss of packed rows, nats per predicted token."""
    trunk = document_trunk(batch)

    def loss(params):
        scores = document_scores(bind(model_config, params), trunk)
        mean = -scores.logprob.sum() / jnp.maximum(predicted_tokens(trunk).sum(), 1)
        return mean, {"no_think_loss": mean}

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    state, metrics = _apply(value, metrics, gradient, optimizer, state)
    return dataclasses.replace(state, step=state.step + 1), metrics


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
