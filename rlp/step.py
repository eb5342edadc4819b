"""One training step: Algorithm 1 of the paper, and next-token training, on one state.

An RLP step is a chain of jitted stages, so that each can be timed and none is computed twice:

    read       forks are chosen, documents read by theta       a wave of documents
    rollout    G thoughts at each fork                          a wave of their forks
    no-think   S_ema, one pass per document for all its forks   a wave of documents
    evidence   S_pred on the rollout's caches, advantages       a wave of their forks
    reference  log pi_ref of the actions, for a KL term         the whole batch, in waves
    update     clipped surrogate, optimizer                     a minibatch, in micro-batches

Waves bound the caches that are alive; with enough memory there is one. theta is that of before the
updates in all stages but the last, which is taken with every minibatch of documents in turn, as
often as a rollout is passed over; phi moves to theta at the end of the step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import forward
from rlp.branches import Forks, Vocabulary, document_trunk, lay_out, make_forks, with_target
from rlp.data.batch import Batch
from rlp.gradient import Loss, Metrics, policy_gradient
from rlp.judging import Judgement, TokenBytes, judge, noise, other_places, outcome
from rlp.objective import equations
from rlp.objective.record import Answers, Outcome
from rlp.objective.registry import find
from rlp.optimizer import Optimizer
from rlp.positions import SCORED, allowed_places, select_forks
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
from rlp.scoring import (
    Scores,
    document_scores,
    learnt_tokens,
    no_think_scores,
    reasoned_scores,
    transplanted_scores,
)
from rlp.waves import split


@dataclasses.dataclass(frozen=True)
class RLPSettings:
    """The numbers of the method; `configs/default.py` explains each, under `rlp`."""

    objective: str  # `objective` itself: a name of `rlp.objective.registry`
    group_size: int
    forks_per_document: int
    thought_length: int
    horizon: int
    horizon_weighting: str
    discount: float
    temperature: float
    positions: str
    hardest_at: int
    min_prefix: int
    prompt: tuple[int, ...]  # token ids
    baseline: str
    ema_decay: float
    clip_low: float
    clip_high: float
    clip_dual: float
    ratio: str
    updates_per_rollout: int
    minibatches: int
    unclosed: str
    unclosed_penalty: float
    length_normalization: str
    advantages: str
    kl_weight: float
    target_weight: float
    next_token_weight: float
    max_branches_in_flight: int
    update_micro_batch: int
    rollout_layout: str
    baseline_memory: str
    planning_weight: float

    @property
    def updates(self) -> int:
        """Optimizer updates of a step: every pass over its rollout takes one a minibatch."""
        return self.updates_per_rollout * self.minibatches

    @property
    def learns_target(self) -> bool:
        """Whether the text after a thought is learnt, too."""
        return self.target_weight > 0 or find(self.objective).target_weights is not None

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
    elsewhere: Forks | None  # other places of the documents, for an objective that reads them
    unselected: jax.Array | None  # [B] nats, mean no-think loss where no fork stands, if known
    keys: jax.Array  # [B] PRNG keys, one per document and step


@flax.struct.dataclass
class NoThink:
    """How likely the targets are without a thought, [B, K]."""

    policy: jax.Array  # mean over the target, nats per token, of theta
    baseline: jax.Array  # [B, K, H], log-probabilities of phi; 0 when there is no baseline


@flax.struct.dataclass
class Evidence:
    """What the thoughts of a rollout are worth. Nats; N = K · G."""

    reasoned: jax.Array  # [B, K, G], S_pred
    baseline: jax.Array  # [B, K], S_ema; 0 when there is no baseline
    gain: jax.Array  # [B, K, G]
    rewards: jax.Array  # [B, K, G]
    advantages: jax.Array  # [B, K, G]
    counted: jax.Array  # [B, K, G] bool: thoughts in the group's mean and in the loss
    target_weights: jax.Array | None  # [B, K, G], of the target's log-likelihood in the loss
    no_think: jax.Array  # [B, K], nats per target token, of theta
    unselected: jax.Array | None  # [B, K], the document's mean no-think loss where no fork stands
    reference: jax.Array | None = None  # [B, N, L], log pi_ref of the actions, for a KL term
    answers: Answers | None = None  # of responses to problems
    planning: jax.Array | None = None  # [B, N, L] bool, of actions that plan, where that counts


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
    scores = loss = None
    if s.positions in SCORED:
        found = document_scores(bind(model_config, scorer), document_trunk(batch), vocabulary)
        loss = -found.logprob
        scores = found.entropy if s.positions == "entropy" else loss
    fork = select_forks(
        s.positions,
        fork_keys(keys),
        (batch.segment > 0).sum(axis=-1),
        s.forks_per_document,
        limit=batch.tokens.shape[1],
        min_prefix=s.min_prefix,
        horizon=s.horizon,
        scores=scores,
        hardness=jnp.clip(step / s.hardest_at, 0.0, 1.0),
        given=batch.forks,
    )
    documents = read_documents(bind(model_config, params), document_trunk(batch, s.prompt))
    elsewhere = None
    if find(s.objective).reads_elsewhere:
        length = (batch.segment > 0).sum(axis=-1)
        place = other_places(keys, fork, length, s.min_prefix, s.horizon)
        elsewhere = make_forks(batch, place, s.horizon)
    forks = make_forks(batch, fork, s.horizon)
    unselected = None if loss is None else _loss_elsewhere(s, batch, fork, loss)
    return Reading(
        documents=documents, forks=forks, elsewhere=elsewhere, unselected=unselected, keys=keys
    )


def _loss_elsewhere(
    settings: RLPSettings, batch: Batch, fork: jax.Array, loss: jax.Array
) -> jax.Array:
    """Mean of `loss` [B, T] over the places of every document where a fork could stand and none
    does, [B]; nan where there is no such place."""
    s, (documents, limit) = settings, loss.shape
    length = (batch.segment > 0).sum(axis=-1)
    left = allowed_places(length, limit, s.min_prefix, s.horizon)
    left = left.at[jnp.arange(documents)[:, None], fork].set(False)
    return jnp.where(left, loss, 0.0).sum(axis=-1) / left.sum(axis=-1)


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
    base = jnp.zeros_like(policy) if baseline is None else score(baseline)
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
    table: TokenBytes | None = None,
) -> Evidence:
    """Scores the targets after the thoughts of a wave, and judges the thoughts by it.

    Args:
      first: the document's fork with which the rollout begins.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
    """
    s = settings
    forks = rollout.thoughts.length.shape[1] // s.group_size
    no_think = _some(no_think, first, forks)
    found, _ = outcome_of(
        model_config, s, vocabulary, params, reading, rollout, no_think.baseline, first, table
    )
    judgement = judgement_of(s, found)
    return Evidence(
        reasoned=found.reasoned,
        baseline=found.baseline,
        gain=equations.information_gain(found.reasoned, found.baseline),
        rewards=judgement.rewards,
        advantages=judgement.advantages,
        counted=judgement.counted,
        target_weights=_with_target_weight(s, judgement),
        no_think=-no_think.policy,
        unselected=None
        if reading.unselected is None
        else jnp.broadcast_to(reading.unselected[:, None], no_think.policy.shape),
    )


def outcome_of(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    reading: Reading,
    rollout: Rollout,
    without: jax.Array,
    first: jax.Array | int = 0,
    table: TokenBytes | None = None,
) -> tuple[Outcome, Scores]:
    """What an objective may look at, of the thoughts of a wave; and the scores of their targets,
    [B, K, G, H] each.

    Args:
      without: log-probabilities of the targets without a thought, [B, K, H] nats.
      first, table: as of `evidence_stage`.
    """
    s, model = settings, bind(model_config, params)
    forks = rollout.thoughts.length.shape[1] // s.group_size
    wave, elsewhere = _some((reading.forks, reading.elsewhere), first, forks)
    grouped = lambda x: x.reshape(x.shape[0], forks, s.group_size, *x.shape[2:])

    def after_thoughts(target: jax.Array) -> Scores:
        target = jnp.repeat(target, s.group_size, axis=1)
        branches = with_target(rollout.branches, target)
        found = reasoned_scores(
            model, rollout.trunk, reading.documents.cache, branches, rollout.branch_cache, target,
            vocabulary,
        )  # fmt: skip
        return jax.tree.map(grouped, found)

    def in_another() -> jax.Array:
        """Each thought in the document before its own, and the last one's in the first."""
        around = lambda x, places: jax.tree.map(lambda y: jnp.roll(y, places, axis=0), x)
        own, target = rollout.branches, jnp.repeat(wave.target, s.group_size, axis=1)
        moved = around(rollout.thoughts, -1)
        branches = lay_out(moved, target, own.fork, own.segment, vocabulary)
        cache = reading.documents.cache
        found = transplanted_scores(model, rollout.trunk, cache, branches, target, vocabulary)
        return grouped(around(found.logprob, 1))

    scores = after_thoughts(wave.target)
    found = outcome(
        scores,
        without,
        rollout.thoughts,
        noise(reading.keys, first, forks, s.group_size),
        equations.horizon_weights(s.horizon, s.horizon_weighting, s.discount),
        target=wave.target,
        table=table,
        elsewhere=None if elsewhere is None else after_thoughts(elsewhere.target).logprob,
        in_another=in_another() if find(s.objective).reads_in_another else None,
    )
    return found, scores


def judgement_of(settings: RLPSettings, found: Outcome) -> Judgement:
    """What the settings' objective says of an outcome."""
    s = settings
    return judge(
        find(s.objective),
        found,
        unclosed=s.unclosed,
        unclosed_penalty=s.unclosed_penalty,
        advantages=s.advantages,
    )


def _with_target_weight(settings: RLPSettings, judgement: Judgement) -> jax.Array | None:
    """The objective's weights of the target, and `target_weight` on top of them."""
    own, extra = judgement.target_weights, settings.target_weight * judgement.counted
    if own is None:
        return extra if settings.target_weight else None
    return own + extra


def verdict_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    reading: Reading,
    rollout: Rollout,
    answers: Answers,
    planning: jax.Array | None,
) -> Evidence:
    """Judges responses to problems by their answers; takes the place of `evidence_stage`.

    Args:
      answers: to the problems of a wave.
      planning: [B, N, L] bool, for an objective that weighs them.
    """
    s, thoughts = settings, rollout.thoughts
    shape = answers.correct.shape
    grouped = lambda x: x.reshape(shape)
    nothing, none = jnp.zeros(shape), jnp.zeros(shape[:2])
    found = Outcome(
        reasoned=nothing,
        baseline=none,
        logprobs=nothing[..., None],
        baseline_logprobs=none[..., None],
        matches=None,
        elsewhere=None,
        in_another=None,
        closed=grouped(thoughts.closed),
        length=grouped(thoughts.length),
        uniform=noise(reading.keys, 0, 1, s.group_size),
        limit=s.thought_length,
        answers=answers,
    )
    judgement = judgement_of(s, found)
    return Evidence(
        reasoned=nothing,
        baseline=none,
        gain=nothing,
        rewards=judgement.rewards,
        advantages=judgement.advantages,
        counted=judgement.counted,
        target_weights=None,
        no_think=none,
        unselected=None,
        answers=jax.tree.map(jnp.asarray, answers),
        planning=planning,
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
        clip_dual=s.clip_dual,
        ratio=s.ratio,
        length_normalization=s.length_normalization,
        horizon_weighting=s.horizon_weighting,
        discount=s.discount,
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
    minibatch: jax.Array | int = 0,
    *,
    shards: int = 1,
) -> tuple[TrainState, Metrics]:
    """One optimizer update on a minibatch of a rollout; does not advance `step` or phi (see
    `finish_step`).

    Args:
      minibatch: its number. Each has the documents that many apart, so that every device has its
        share of each, and a loss that is the mean over its own thoughts.
      shards: devices that split the documents.
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
    value, metrics, gradient = policy_gradient(
        state.params,
        model_config,
        loss_numbers(settings),
        vocabulary,
        rollout,
        advantages,
        flat(evidence.counted),
        evidence.reference,
        None if evidence.target_weights is None else flat(evidence.target_weights),
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
    """One update on the mean next-token loss of packed rows, nats per predicted token.

    With a `loss_mask`, of its tokens alone.
    """
    trunk = document_trunk(batch)
    learnt = learnt_tokens(trunk, batch.loss_mask)

    def loss(params):
        scores = document_scores(bind(model_config, params), trunk)
        total = jnp.where(learnt, scores.logprob, 0.0).sum()
        mean = -total / jnp.maximum(learnt.sum(), 1)
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
