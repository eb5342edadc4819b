"""The stages of thoughts: rollout, evidence, rewards and advantages."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.sharding import shards
from models.transformer import Params, bind
from rlp.engine.advantages import Credit, assign_credit
from rlp.engine.branches import Vocabulary
from rlp.engine.forked_documents import ForkedDocuments, some_forks
from rlp.engine.readings import RolloutBatch, readings
from rlp.engine.reference_policy import reference_logprobs
from rlp.engine.rollout import Rollout, roll_out
from rlp.engine.sampling import noise, thought_uniforms
from rlp.engine.scoring import Scores
from rlp.engine.settings import RLPSettings
from rlp.engine.step.reading import NoThink
from rlp.engine.token_bytes import TokenBytes
from rlp.objectives import equations
from rlp.objectives.outcome import Answers, Outcome
from rlp.objectives.registry import find


@flax.struct.dataclass
class Evidence:
    """Evidence, rewards and advantages of the thoughts of a rollout; N = K · G."""

    reasoned: jax.Array  # [B, K, G] nats, S_pred
    baseline: jax.Array  # [B, K] nats, S_ema; 0 without a baseline
    gain: jax.Array  # [B, K, G] nats, information gain
    rewards: jax.Array  # [B, K, G], in the unit of the objective
    advantages: jax.Array  # [B, K, G]
    counted: jax.Array  # [B, K, G] bool: in the mean of the group and in the loss
    target_weights: jax.Array | None  # [B, K, G], of the target's log-likelihood in the loss
    no_think: jax.Array  # [B, K] nats per target token, no-think loss of theta
    unselected: jax.Array | None  # [B, K] nats, no-think loss at the document's other positions
    narrow: jax.Array | None  # [B, K] bool: groups excluded by `rlp.min_reward_std`
    in_band: jax.Array | None = None  # [B, K] bool: forks in the band; the others do not count
    reference: jax.Array | None = None  # [B, N, L] nats, log pi_ref of the actions, for a KL term
    answers: Answers | None = None  # of responses to problems
    planning: jax.Array | None = None  # [B, N, L] bool: planning actions, if the objective weighs
    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)  # of the objective


def rollout_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    forked: ForkedDocuments,
    first: jax.Array | int = 0,
    forks: int | None = None,
) -> Rollout:
    """Sample G thoughts at some forks of every document.

    Args:
      params: theta_old, which prefilled the documents.
      forked: the documents with all K forks.
      first: index of the first of these forks.
      forks: number of these forks per document; None for all.
    """
    s = settings
    forks = s.forks_per_document if forks is None else forks
    uniforms = thought_uniforms(forked.keys, first, forks, s.group_size, s.thought_length)
    return roll_out(
        bind(model_config, params),
        forked.documents,
        some_forks(forked.forks, first, forks),
        uniforms,
        prompt_length=len(s.prompt),
        temperature=s.temperature,
        vocabulary=vocabulary,
        min_words=s.min_thought_length,
        limit=s.thought_limit(forked.step),
    )


def evidence_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    forked: ForkedDocuments,
    no_think: NoThink,
    rollout: Rollout,
    first: jax.Array | int = 0,
    table: TokenBytes | None = None,
) -> Evidence:
    """Compute S_pred, information gain, rewards (eq. 3) and advantages (eq. 4) of a rollout batch.

    Args:
      params: theta_old.
      forked: the documents with all forks, and their caches.
      no_think: scores of all forks without thoughts.
      rollout: the thoughts of the batch.
      first: index of the batch's first fork per document.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
    """
    s = settings
    forks = rollout.thoughts.length.shape[1] // s.group_size
    no_think = some_forks(no_think, first, forks)
    thought, _ = outcome_of(
        model_config, s, vocabulary, params, forked, rollout, no_think.baseline, first, table
    )
    in_band = some_forks(forked.in_band, first, forks)
    credit = credit_of(s, thought, in_band)
    return Evidence(
        reasoned=thought.reasoned,
        baseline=thought.baseline,
        gain=equations.information_gain(thought.reasoned, thought.baseline),
        rewards=credit.rewards,
        advantages=credit.advantages,
        counted=credit.counted,
        target_weights=_with_target_weight(s, credit),
        no_think=-no_think.policy,
        unselected=None
        if forked.unselected is None
        else jnp.broadcast_to(forked.unselected[:, None], no_think.policy.shape),
        narrow=credit.narrow,
        in_band=in_band,
        metrics=metrics_of(s, thought),
    )


def outcome_of(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    forked: ForkedDocuments,
    rollout: Rollout,
    without: jax.Array,
    first: jax.Array | int = 0,
    table: TokenBytes | None = None,
) -> tuple[Outcome, Scores]:
    """Return the outcome of the thoughts of a rollout batch, the input of an objective; and the
    scores of their targets, [B, K, G, H].

    Args:
      params: theta_old.
      forked, rollout, first, table: as in `evidence_stage`.
      without: log-probabilities of the batch's targets without a thought, [B, K, H] nats.
    """
    s = settings
    model = bind(model_config, params)
    batch = RolloutBatch(model, s, vocabulary, forked, rollout, first, table=table)
    batch = dataclasses.replace(batch, scores=batch.scores_of(batch.forks))
    assert batch.scores is not None
    result = outcome(
        batch,
        reasoned=batch.evidence(batch.scores.logprob, batch.forks.present),
        baseline=batch.evidence(without, batch.forks.present),
        logprobs=batch.scores.logprob,
        baseline_logprobs=without,
        present=batch.forks.present,
    )
    return result, batch.scores


def outcome(
    batch: RolloutBatch, more: Mapping[str, Any] | None = None, **fields: jax.Array
) -> Outcome:
    """Return the outcome of the thoughts of a rollout batch, the input of an objective.

    Args:
      batch: the thoughts.
      more: readings that are not computed from the batch.
      **fields: evidence and log-probabilities of the text after the thoughts, see `Outcome`.
    """
    s, thoughts = batch.settings, batch.rollout.thoughts
    forks = thoughts.length.shape[1] // s.group_size
    return Outcome(
        **fields,
        closed=batch.grouped(thoughts.closed),
        length=batch.grouped(thoughts.length),
        uniform=noise(batch.forked.keys, batch.first, forks, s.group_size),
        limit=thoughts.actions.shape[-1],
        readings=readings(batch) | dict(more or {}),
        options=s.options,
        objective=s.objective,
    )


def credit_of(settings: RLPSettings, outcome: Outcome, in_band: jax.Array | None = None) -> Credit:
    """Compute rewards, advantages and target weights by the settings' objective; `in_band` as in
    `assign_credit`."""
    s = settings
    return assign_credit(
        find(s.objective),
        outcome,
        unclosed=s.unclosed,
        unclosed_penalty=s.unclosed_penalty,
        reward_floor=s.reward_floor,
        min_reward_std=s.min_reward_std,
        advantages=s.advantages,
        in_band=in_band,
    )


def metrics_of(settings: RLPSettings, outcome: Outcome) -> dict[str, jax.Array]:
    """Compute the metrics that the settings' objective declares, by name, [B, K, G] each."""
    declared = find(settings.objective).metrics.items()
    whole = lambda x: jnp.broadcast_to(x, outcome.closed.shape)
    return {metric.name: whole(value(outcome)) for metric, value in declared if value}


def _with_target_weight(settings: RLPSettings, credit: Credit) -> jax.Array | None:
    """Add `rlp.target_weight` to the objective's target weights, [B, K, G]; None if both are 0."""
    weights, extra = credit.target_weights, settings.target_weight * credit.counted
    if weights is None:
        return extra if settings.target_weight else None
    return weights + extra


def answer_rewards_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    forked: ForkedDocuments,
    rollout: Rollout,
    answers: Answers,
    planning: jax.Array | None,
) -> Evidence:
    """Compute rewards and advantages of responses from their answers, instead of `evidence_stage`.

    Args:
      forked: the problems, as documents with one fork at the end.
      rollout: the responses.
      answers: their graded answers, [B, 1, G].
      planning: [B, N, L] bool, planning actions; None if the objective does not weigh them.
    """
    s, shape = settings, answers.correct.shape
    per_thought, per_fork = jnp.zeros(shape), jnp.zeros(shape[:2])
    model: Any = None  # no reading of problems is computed with it
    graded = outcome(
        RolloutBatch(model, s, vocabulary, forked, rollout),
        {"answers": answers},
        reasoned=per_thought,
        baseline=per_fork,
        logprobs=per_thought[..., None],
        baseline_logprobs=per_fork[..., None],
        present=jnp.zeros((*per_fork.shape, 1), bool),
    )
    credit = credit_of(s, graded)
    return Evidence(
        reasoned=per_thought,
        baseline=per_fork,
        gain=per_thought,
        rewards=credit.rewards,
        advantages=credit.advantages,
        counted=credit.counted,
        target_weights=None,
        no_think=per_fork,
        unselected=None,
        answers=jax.tree.map(jnp.asarray, answers),
        planning=planning,
        narrow=credit.narrow,
        metrics=metrics_of(s, graded),
    )


def reference_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    reference: Params,
    rollout: Rollout,
) -> jax.Array:
    """Return log pi_ref of all actions of a rollout, [B, N, L] nats, at the sampling temperature.

    Args:
      reference: parameters of pi_ref.
      rollout: of all rollout batches; its cache is not read.
    """
    return reference_logprobs(
        bind(model_config, reference),
        rollout,
        vocabulary,
        settings.temperature,
        settings.min_thought_length,
        max_branches=settings.max_branches_in_flight,
        shards=shards("rows"),
    )
