"""The readings: what an objective can read besides the fields of `Outcome`, in one table.

An objective declares the names of its readings (`Objective.reads`). Only those are computed,
counted in FLOPs, and checked for what they need; its functions find them as attributes of `Outcome`
(and of `Actions`). To add a reading, add its entry to `READINGS`.
"""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.transformer import Transformer
from rlp.engine.branches import (
    Forks,
    Vocabulary,
    document_tokens,
    lay_out,
    target_tokens,
    with_target,
)
from rlp.engine.forked_documents import ForkedDocuments, some_forks
from rlp.engine.rollout import Rollout
from rlp.engine.sampling import other_places
from rlp.engine.scoring import Scores, reasoned_scores, transplanted_scores
from rlp.engine.settings import RLPSettings
from rlp.engine.token_bytes import TokenBytes, matches
from rlp.objectives import equations
from rlp.objectives.registry import find
from rlp.runtime.errors import UserError

# What a reading can cost, besides arithmetic on arrays that are there anyway: for every thought,
TARGET_PASS = "target"  # the slots from its last action to the end of a target
BRANCH_PASS = "branch"  # all slots of its branch

# What a reading can need:
TEXT = "text"  # documents that go on after the thoughts
PROBLEMS = "problems"  # with answers that the host checks
BASELINE = "baseline"  # a network phi
TOKEN_BYTES = "token bytes"
OTHER_DOCUMENT = "another document"  # in the rollout batch


@dataclasses.dataclass(frozen=True)
class RolloutBatch:
    """What readings are computed from: thoughts at K forks of each of B documents.

    Attributes:
      model: theta, which sampled the thoughts.
      settings, vocabulary: of the method.
      forked: the documents with all their forks.
      rollout: thoughts of its forks.
      first: number of the first of these forks.
      scores: of the text after the thoughts, [B, K, G, H]; None where no text follows.
      table: bytes of the tokens; None where no reading needs them.
    """

    model: Transformer
    settings: RLPSettings
    vocabulary: Vocabulary
    forked: ForkedDocuments
    rollout: Rollout
    first: jax.Array | int = 0
    scores: Scores | None = None
    table: TokenBytes | None = None

    @property
    def forks(self) -> Forks:
        """The forks of the rollout batch, [B, K]."""
        return self.some(self.forked.forks)

    def some(self, of_forks: Any) -> Any:
        """Of arrays with an entry for every fork of the documents, those of the batch."""
        forks = self.rollout.thoughts.length.shape[1] // self.settings.group_size
        return some_forks(of_forks, self.first, forks)

    def grouped(self, x: jax.Array) -> jax.Array:
        """[B, K · G, …] to [B, K, G, …]."""
        return x.reshape(x.shape[0], -1, self.settings.group_size, *x.shape[2:])

    def evidence(self, logprobs: jax.Array) -> jax.Array:
        """Log-probabilities of targets [B, K, G, H] to their evidence [B, K, G], nats."""
        s = self.settings
        weights = equations.horizon_weights(s.horizon, s.horizon_weighting, s.discount)
        return equations.evidence(logprobs, weights)

    def scores_of(self, target: jax.Array) -> Scores:
        """Scores of targets [B, K, H] after each thought of their fork, [B, K, G, H]."""
        target = jnp.repeat(target, self.settings.group_size, axis=1)
        r, branches = self.rollout, with_target(self.rollout.branches, target)
        found = reasoned_scores(
            self.model, r.trunk, self.forked.documents.cache, branches, r.branch_cache, target,
            self.vocabulary,
        )  # fmt: skip
        return jax.tree.map(self.grouped, found)


@dataclasses.dataclass(frozen=True)
class Reading:
    """Something that an objective can read.

    Attributes:
      meaning: with shape and unit.
      compute: from a rollout batch; None for what the stages have anyway.
      cost: a forward pass of theta that it adds: `TARGET_PASS`, `BRANCH_PASS`, or "" for none.
      needs: what a run must have for it.
    """

    meaning: str
    compute: Callable[[RolloutBatch], jax.Array] | None = None
    cost: str = ""
    needs: tuple[str, ...] = ()


def _matches(batch: RolloutBatch) -> jax.Array:
    assert batch.scores is not None
    assert batch.table is not None
    target = batch.forks.target[:, :, None, :]
    return matches(batch.scores.likeliest[..., 0], target, batch.table)


def _elsewhere(batch: RolloutBatch) -> jax.Array:
    s, forked = batch.settings, batch.forked
    tokens, segment = document_tokens(forked.documents.trunk, len(s.prompt), s.bos)
    length, fork = (segment > 0).sum(axis=-1), forked.forks.position
    place = other_places(forked.keys, fork, length, s.min_prefix, s.horizon)
    target = batch.some(target_tokens(tokens, place, s.horizon))
    return batch.evidence(batch.scores_of(target).logprob)


def _in_another(batch: RolloutBatch) -> jax.Array:
    """Each thought in the document before its own, and the last one's in the first."""
    around = lambda x, places: jax.tree.map(lambda y: jnp.roll(y, places, axis=0), x)
    own, target = batch.rollout.branches, batch.rollout.target
    moved = around(batch.rollout.thoughts, -1)
    branches = lay_out(moved, target, own.fork, own.segment, batch.vocabulary)
    trunk, cache = batch.rollout.trunk, batch.forked.documents.cache
    found = transplanted_scores(batch.model, trunk, cache, branches, target, batch.vocabulary)
    return batch.evidence(batch.grouped(around(found.logprob, 1)))


READINGS = {
    "baseline": Reading(
        "the reward means nothing without `Outcome.baseline` and `baseline_logprobs`",
        needs=(TEXT, BASELINE),
    ),
    "matches": Reading(
        "[B, K, G] bool: the likeliest token after the thought is what follows, byte for byte",
        _matches,
        needs=(TEXT, TOKEN_BYTES),
    ),
    "elsewhere": Reading(
        "[B, K, G] nats: evidence of the text at another place of the document, after the thought",
        _elsewhere,
        cost=TARGET_PASS,
        needs=(TEXT,),
    ),
    "in_another": Reading(
        "[B, K, G] nats: evidence of the text of another document, after the thought put there",
        _in_another,
        cost=BRANCH_PASS,
        needs=(TEXT, OTHER_DOCUMENT),
    ),
    "answers": Reading(
        "`rlp.objectives.outcome.Answers`, [B, 1, G] each: what the responses to problems answer",
        needs=(PROBLEMS,),
    ),
    "thought_tokens": Reading(
        "[B, K, G, L] int32: ids of the thought's actions; after the last of its `length`, padding",
        lambda batch: batch.grouped(batch.rollout.thoughts.actions),
    ),
    "step": Reading(
        "int32: steps that training has taken before; 0 in the figures of held-out thoughts",
        lambda batch: jnp.asarray(batch.forked.step, jnp.int32),
    ),
    "entropy": Reading(
        "[B, N, L] nats, of `Actions`: entropy of the distribution that each action is sampled "
        "from, at the sampling temperature; carries a gradient",
    ),
}


def readings(batch: RolloutBatch) -> dict[str, jax.Array]:
    """The readings that the settings' objective declares, by name."""
    declared = {name: READINGS[name].compute for name in find(batch.settings.objective).reads}
    return {name: compute(batch) for name, compute in declared.items() if compute}


def costs(objective: str) -> list[str]:
    """The forward passes that the readings of an objective add."""
    return [cost for name in find(objective).reads if (cost := READINGS[name].cost)]


def needs(objective: str) -> set[str]:
    """What a run must have for the readings of an objective."""
    return {need for name in find(objective).reads for need in READINGS[name].needs}


def check(objective: str) -> None:
    """Refuses an objective whose readings do not exist or cannot be had together.

    Raises:
      UserError: names the reading.
    """
    for name in find(objective).reads:
        if name not in READINGS:
            near = difflib.get_close_matches(name, READINGS, 1, 0.6)
            cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(READINGS)}"
            raise UserError(f"objective={objective!r} declares the reading {name!r}; {cure}")
    if {TEXT, PROBLEMS} <= needs(objective):
        texts = [name for name in find(objective).reads if TEXT in READINGS[name].needs]
        raise UserError(
            f"objective={objective!r} reads answers and {texts[0]}, but no text follows a response "
            "to a problem; declare one of them"
        )
