"""The stages of thoughts: sampled, then rewarded for the text after them or for their answers."""

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
    """Samples G thoughts at each of `forks` forks of every document, None for all, from `first`."""
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
    """Scores the targets after the thoughts of a rollout batch, and rewards the thoughts by it.

    Args:
      first: the document's fork with which the rollout begins.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
    """
    s = settings
    forks = rollout.thoughts.length.shape[1] // s.group_size
    no_think = some_forks(no_think, first, forks)
    found, _ = outcome_of(
        model_config, s, vocabulary, params, forked, rollout, no_think.baseline, first, table
    )
    credit = credit_of(s, found)
    return Evidence(
        reasoned=found.reasoned,
        baseline=found.baseline,
        gain=equations.information_gain(found.reasoned, found.baseline),
        rewards=credit.rewards,
        advantages=credit.advantages,
        counted=credit.counted,
        target_weights=_with_target_weight(s, credit),
        no_think=-no_think.policy,
        unselected=None
        if forked.unselected is None
        else jnp.broadcast_to(forked.unselected[:, None], no_think.policy.shape),
        metrics=metrics_of(s, found),
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
    """What an objective may look at, of the thoughts of a rollout batch; and the scores of their
    targets, [B, K, G, H] each.

    Args:
      without: log-probabilities of the targets without a thought, [B, K, H] nats.
      first, table: as of `evidence_stage`.
    """
    s = settings
    model = bind(model_config, params)
    batch = RolloutBatch(model, s, vocabulary, forked, rollout, first, table=table)
    batch = dataclasses.replace(batch, scores=batch.scores_of(batch.forks.target))
    assert batch.scores is not None
    found = outcome(
        batch,
        reasoned=batch.evidence(batch.scores.logprob),
        baseline=batch.evidence(without),
        logprobs=batch.scores.logprob,
        baseline_logprobs=without,
    )
    return found, batch.scores


def outcome(
    batch: RolloutBatch, more: Mapping[str, Any] | None = None, **fields: jax.Array
) -> Outcome:
    """What an objective may look at.

    Args:
      batch: the thoughts.
      more: readings that are not computed from the batch.
      **fields: what is known of the text after the thoughts, see `Outcome`.
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


def credit_of(settings: RLPSettings, found: Outcome) -> Credit:
    """What the settings' objective says of an outcome."""
    s = settings
    return assign_credit(
        find(s.objective),
        found,
        unclosed=s.unclosed,
        unclosed_penalty=s.unclosed_penalty,
        advantages=s.advantages,
    )


def metrics_of(settings: RLPSettings, found: Outcome) -> dict[str, jax.Array]:
    """The objective's own metrics of an outcome, [B, K, G] each."""
    own = find(settings.objective).metrics.items()
    whole = lambda x: jnp.broadcast_to(x, found.closed.shape)
    return {metric.name: whole(value(found)) for metric, value in own if value}


def _with_target_weight(settings: RLPSettings, credit: Credit) -> jax.Array | None:
    """The objective's weights of the target, and `target_weight` on top of them."""
    own, extra = credit.target_weights, settings.target_weight * credit.counted
    if own is None:
        return extra if settings.target_weight else None
    return own + extra


def answer_rewards_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    forked: ForkedDocuments,
    rollout: Rollout,
    answers: Answers,
    planning: jax.Array | None,
) -> Evidence:
    """Rewards responses to problems by their answers; takes the place of `evidence_stage`.

    Args:
      answers: to the problems of a rollout batch.
      planning: [B, N, L] bool, for an objective that weighs them.
    """
    s, shape = settings, answers.correct.shape
    nothing, none = jnp.zeros(shape), jnp.zeros(shape[:2])
    model: Any = None  # no reading of problems is computed with it
    found = outcome(
        RolloutBatch(model, s, vocabulary, forked, rollout),
        {"answers": answers},
        reasoned=nothing,
        baseline=none,
        logprobs=nothing[..., None],
        baseline_logprobs=none[..., None],
    )
    credit = credit_of(s, found)
    return Evidence(
        reasoned=nothing,
        baseline=none,
        gain=nothing,
        rewards=credit.rewards,
        advantages=credit.advantages,
        counted=credit.counted,
        target_weights=None,
        no_think=none,
        unselected=None,
        answers=jax.tree.map(jnp.asarray, answers),
        planning=planning,
        metrics=metrics_of(s, found),
    )


def reference_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    reference: Params,
    rollout: Rollout,
) -> jax.Array:
    """log pi_ref of all actions of a rollout, [B, N, L] nats, in the sampler's measure.

    Args:
      rollout: of all rollout batches; its cache is not used.
    """
    return reference_logprobs(
        bind(model_config, reference),
        rollout,
        vocabulary,
        settings.temperature,
        max_branches=settings.max_branches_in_flight,
        shards=shards("rows"),
    )
