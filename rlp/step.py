"""One training step: Algorithm 1 of the paper, and next-token training, on one state.

An RLP step is three jitted stages, so that each can be timed and none is computed twice:

    rollout    forks, G thoughts each            (theta_old = theta before the update)
    evidence   S_pred on the rollout's caches, S_ema in one pass per document, advantages
    update     clipped surrogate through trunk and branches, optimizer, phi moves to theta
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import forward, forward_tree
from rlp import objective
from rlp.branches import Forks, Vocabulary, document_trunk, make_forks
from rlp.data.batch import Batch
from rlp.optimizer import Optimizer
from rlp.positions import select_forks
from rlp.rollout import Rollout, document_keys, fork_keys, roll_out, thought_uniforms
from rlp.scoring import (
    document_scores,
    no_think_scores,
    predicted_tokens,
    reasoned_scores,
    token_scores,
)

Metrics = dict[str, jax.Array]


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


@flax.struct.dataclass
class TrainState:
    """Everything that a restart needs, besides the data position."""

    step: jax.Array  # int32, rollouts or next-token steps taken
    params: Params  # theta
    optimizer: Any
    baseline: Params | None  # phi, float32
    skipped: jax.Array  # int32, updates skipped because loss or gradient was not finite
    skipped_in_row: jax.Array  # int32, the same since the last good update


@flax.struct.dataclass
class Evidence:
    """What the thoughts of a rollout are worth. Nats; N = K · G."""

    reasoned: jax.Array  # [B, K, G], S_pred
    baseline: jax.Array  # [B, K], S_ema; 0 when there is no baseline
    gain: jax.Array  # [B, K, G]
    rewards: jax.Array  # [B, K, G]
    advantages: jax.Array  # [B, K, G]
    counted: jax.Array  # [B, K, G] bool: thoughts in the group's mean and in the loss
    no_think_loss: jax.Array  # scalar, nats per target token, of theta


def new_state(params: Params, optimizer: Optimizer, baseline: bool) -> TrainState:
    """The state before the first step. phi starts as a copy of theta."""
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero(),
        params=params,
        optimizer=optimizer.init(params),
        baseline=jax.tree.map(jnp.copy, params) if baseline else None,
        skipped=zero(),
        skipped_in_row=zero(),
    )


def rollout_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    scorer: Params,
    batch: Batch,
    key: jax.Array,
    step: jax.Array | int,
) -> tuple[Rollout, Forks]:
    """Chooses the forks of a batch and samples their thoughts.

    Args:
      params: theta_old.
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
    forks = make_forks(batch, fork, s.horizon)
    uniforms = thought_uniforms(keys, s.forks_per_document, s.group_size, s.thought_length)
    rollout = roll_out(
        bind(model_config, params),
        document_trunk(batch, s.prompt),
        forks,
        uniforms,
        prompt_length=len(s.prompt),
        temperature=s.temperature,
        vocabulary=vocabulary,
    )
    return rollout, forks


def evidence_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    baseline: Params | None,
    batch: Batch,
    rollout: Rollout,
    forks: Forks,
) -> Evidence:
    """Scores the targets with and without thoughts, and turns gains into advantages."""
    s, policy = settings, bind(model_config, params)
    grouped = lambda x: x.reshape(x.shape[0], s.forks_per_document, s.group_size, *x.shape[2:])
    found = reasoned_scores(
        policy,
        rollout.trunk,
        rollout.trunk_cache,
        rollout.branches,
        rollout.branch_cache,
        jnp.repeat(forks.target, s.group_size, axis=1),
        vocabulary,
    )
    weights = objective.horizon_weights(s.horizon, s.horizon_weighting, s.discount)
    reasoned = objective.evidence(grouped(found.logprob), weights)

    documents = document_trunk(batch)
    score = lambda model, hidden: (
        no_think_scores(model, hidden, forks.position, forks.target, vocabulary).logprob
    )
    # Without a prompt the rollout's own pass over the documents is the policy's no-think pass.
    hidden = forward(policy, documents) if s.prompt else rollout.hidden
    no_think = score(policy, hidden)
    if baseline is None:
        base = jnp.zeros(forks.position.shape, jnp.float32)
    else:
        phi = bind(model_config, baseline)
        base = objective.evidence(score(phi, forward(phi, documents)), weights)

    gain = objective.information_gain(reasoned, base)
    closed = grouped(rollout.thoughts.closed)
    rewards = objective.rewards(gain, closed, s.unclosed, s.unclosed_penalty)
    counted = objective.counted_thoughts(closed, s.unclosed)
    return Evidence(
        reasoned=reasoned,
        baseline=base,
        gain=gain,
        rewards=rewards,
        advantages=objective.group_advantages(rewards, counted),
        counted=counted,
        no_think_loss=-no_think.mean(),
    )


def policy_loss(
    params: Params,
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    rollout: Rollout,
    advantages: jax.Array,
    counted: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Eq. 5 over one packed pass of trunks and branches.

    Args:
      params: theta, differentiated.
      rollout: its trunk, branches and thoughts; the caches are not used.
      advantages, counted: [B, N].
    """
    s, model, thoughts = settings, bind(model_config, params), rollout.thoughts
    branches = rollout.branches.slots(0, s.thought_length)  # the slots that predict actions
    hidden = forward_tree(model, rollout.trunk, branches)
    first = jnp.arange(s.thought_length)[None, None, :] == 0
    scores = token_scores(
        model,
        hidden,
        thoughts.actions,
        vocabulary.not_in_thoughts,
        s.temperature,
        vocabulary.think_close,
        first,
    )
    weights = objective.action_weights(
        thoughts.length, counted, s.thought_length, s.length_normalization
    )
    loss, clip_fraction = objective.clipped_surrogate(
        scores.logprob, thoughts.logprobs, advantages, weights, s.clip_low, s.clip_high
    )
    live = jnp.arange(s.thought_length)[None, None, :] < thoughts.length[..., None]
    mean = lambda x: jnp.where(live, x, 0.0).sum() / jnp.maximum(live.sum(), 1)
    return loss, {
        "clip_fraction": clip_fraction,
        "thought_entropy": mean(scores.entropy),
        "logprob_gap": mean(jnp.abs(scores.logprob - thoughts.logprobs)),
    }


def update_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    optimizer: Optimizer,
    state: TrainState,
    rollout: Rollout,
    evidence: Evidence,
) -> tuple[TrainState, Metrics]:
    """One optimizer update on a rollout; does not advance `step` or phi (see `finish_step`)."""
    flat = lambda x: x.reshape(x.shape[0], -1)
    loss = functools.partial(
        policy_loss,
        model_config=model_config,
        settings=settings,
        vocabulary=vocabulary,
        rollout=rollout,
        advantages=flat(evidence.advantages),
        counted=flat(evidence.counted),
    )
    return _apply(loss, optimizer, state)


def finish_step(settings: RLPSettings, state: TrainState) -> TrainState:
    """Counts the step and moves phi towards theta."""
    baseline = state.baseline
    if settings.baseline == "ema":
        baseline = jax.tree.map(
            lambda phi, theta: objective.ema(phi, theta, settings.ema_decay),
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

    state, metrics = _apply(loss, optimizer, state)
    return dataclasses.replace(state, step=state.step + 1), metrics


def _apply(
    loss: Callable[[Params], tuple[jax.Array, Metrics]],
    optimizer: Optimizer,
    state: TrainState,
) -> tuple[TrainState, Metrics]:
    """Gradient and optimizer update.

    A loss, gradient or new parameter that is not finite leaves the state as it was.
    """
    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
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


def rollout_metrics(rollout: Rollout, evidence: Evidence, settings: RLPSettings) -> Metrics:
    """Figures of one rollout, each a mean over branches or groups."""
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
        "no_think_loss": evidence.no_think_loss,
    }
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
