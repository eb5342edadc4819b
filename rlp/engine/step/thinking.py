"""The stages of thoughts: sampled, then rewarded for the text after them or for their answers."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.sharding import shards
from models.transformer import Params, bind
from rlp.engine.advantages import Credit, assign_credit, outcome
from rlp.engine.branches import Vocabulary, lay_out, with_target
from rlp.engine.reference_policy import reference_logprobs
from rlp.engine.rollout import Rollout, roll_out
from rlp.engine.sampling import noise, thought_uniforms
from rlp.engine.scoring import Scores, reasoned_scores, transplanted_scores
from rlp.engine.settings import RLPSettings
from rlp.engine.step.reading import ForkedDocuments, NoThink
from rlp.engine.token_bytes import TokenBytes
from rlp.objectives import equations
from rlp.objectives.record import Answers, Outcome
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
        _some(forked.forks, first, forks),
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
    """Scores the targets after the thoughts of a wave, and rewards the thoughts by it.

    Args:
      first: the document's fork with which the rollout begins.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.
    """
    s = settings
    forks = rollout.thoughts.length.shape[1] // s.group_size
    no_think = _some(no_think, first, forks)
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
    """What an objective may look at, of the thoughts of a wave; and the scores of their targets,
    [B, K, G, H] each.

    Args:
      without: log-probabilities of the targets without a thought, [B, K, H] nats.
      first, table: as of `evidence_stage`.
    """
    s, model = settings, bind(model_config, params)
    forks = rollout.thoughts.length.shape[1] // s.group_size
    wave, elsewhere = _some((forked.forks, forked.elsewhere), first, forks)
    grouped = lambda x: x.reshape(x.shape[0], forks, s.group_size, *x.shape[2:])

    def after_thoughts(target: jax.Array) -> Scores:
        target = jnp.repeat(target, s.group_size, axis=1)
        branches = with_target(rollout.branches, target)
        found = reasoned_scores(
            model, rollout.trunk, forked.documents.cache, branches, rollout.branch_cache, target,
            vocabulary,
        )  # fmt: skip
        return jax.tree.map(grouped, found)

    def in_another() -> jax.Array:
        """Each thought in the document before its own, and the last one's in the first."""
        around = lambda x, places: jax.tree.map(lambda y: jnp.roll(y, places, axis=0), x)
        own, target = rollout.branches, jnp.repeat(wave.target, s.group_size, axis=1)
        moved = around(rollout.thoughts, -1)
        branches = lay_out(moved, target, own.fork, own.segment, vocabulary)
        cache = forked.documents.cache
        found = transplanted_scores(model, rollout.trunk, cache, branches, target, vocabulary)
        return grouped(around(found.logprob, 1))

    scores = after_thoughts(wave.target)
    found = outcome(
        scores,
        without,
        rollout.thoughts,
        noise(forked.keys, first, forks, s.group_size),
        equations.horizon_weights(s.horizon, s.horizon_weighting, s.discount),
        target=wave.target,
        table=table,
        elsewhere=None if elsewhere is None else after_thoughts(elsewhere.target).logprob,
        in_another=in_another() if find(s.objective).reads_in_another else None,
    )
    return found, scores


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
        uniform=noise(forked.keys, 0, 1, s.group_size),
        limit=s.thought_length,
        answers=answers,
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
      rollout: of all waves; its cache is not used.
    """
    return reference_logprobs(
        bind(model_config, reference),
        rollout,
        vocabulary,
        settings.temperature,
        max_branches=settings.max_branches_in_flight,
        shards=shards("rows"),
    )


def _some(of_forks: Any, first: jax.Array | int, forks: int) -> Any:
    """`forks` forks of every document from `first` on, of arrays [B, K, …]."""
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, forks, axis=1)
    return jax.tree.map(cut, of_forks)
