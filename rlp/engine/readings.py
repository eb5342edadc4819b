"""The readings: values that an objective can read besides the fields of `Outcome`, in one table.

An objective declares the names of its readings (`Objective.reads`). Only declared readings are
computed and counted in FLOPs, and their requirements are checked. They are attributes of `Outcome`
(and of `Actions`). To add a reading, add an entry to `READINGS`.
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
    forks_of,
    lay_out,
    with_target,
)
from rlp.engine.forked_documents import ForkedDocuments, some_forks
from rlp.engine.rollout import Rollout
from rlp.engine.sampling import other_positions
from rlp.engine.scoring import Scores, reasoned_scores, transplanted_scores, where_present
from rlp.engine.settings import RLPSettings
from rlp.engine.token_bytes import TokenBytes, matches
from rlp.objectives import equations
from rlp.objectives.registry import find
from rlp.runtime.errors import UserError

# Forward passes of theta that a reading can cost, for every thought:
TARGET_PASS = "target"  # over the slots from its last action to the end of a target
BRANCH_PASS = "branch"  # over all slots of its branch

# Requirements that a reading can have:
TEXT = "text"  # text follows the thoughts
PROBLEMS = "problems"  # problems with answers that the host checks
BASELINE = "baseline"  # a network phi
TOKEN_BYTES = "token bytes"  # a table of the bytes of all tokens
OTHER_DOCUMENT = "another document"  # in the rollout batch


@dataclasses.dataclass(frozen=True)
class RolloutBatch:
    """The inputs of readings: G thoughts at each of K forks of B documents.

    Attributes:
      model: theta, which sampled the thoughts.
      settings, vocabulary: of the method.
      forked: the documents with all their forks, of which the K are a part.
      rollout: the thoughts at the K forks.
      first: index of the first of these forks.
      scores: of the targets after the thoughts, [B, K, G, H]; None if no text follows them.
      table: bytes of the tokens; None if no reading needs them.
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
        return self.at_forks(self.forked.forks)

    def at_forks(self, of_forks: Any) -> Any:
        """Slice arrays with an entry for every fork of the documents to the forks of the batch."""
        forks = self.rollout.thoughts.length.shape[1] // self.settings.group_size
        return some_forks(of_forks, self.first, forks)

    def grouped(self, x: jax.Array) -> jax.Array:
        """Reshape [B, K · G, …] to [B, K, G, …]."""
        return x.reshape(x.shape[0], -1, self.settings.group_size, *x.shape[2:])

    def evidence(self, logprobs: jax.Array, present: jax.Array) -> jax.Array:
        """Return the evidence [B, K, …] of target log-probabilities [B, K, …, H], nats; `present`
        [B, K, H] bool are the tokens that there are."""
        s = self.settings
        present = equations.over_thoughts(present, logprobs)
        weights = equations.horizon_weights(present, s.horizon_weighting, s.discount)
        return equations.evidence(logprobs, weights)

    def scores_of(self, forks: Forks) -> Scores:
        """Score the targets of K forks after each thought of the forks of the batch, [B, K, G, H];
        0 for tokens that the document does not have."""
        target = jnp.repeat(forks.target, self.settings.group_size, axis=1)
        r, branches = self.rollout, with_target(self.rollout.branches, target)
        scores = reasoned_scores(
            self.model, r.trunk, self.forked.documents.cache, branches, r.branch_cache, target,
            self.vocabulary,
        )  # fmt: skip
        return where_present(jax.tree.map(self.grouped, scores), forks.present[:, :, None])


@dataclasses.dataclass(frozen=True)
class Reading:
    """A value that an objective can read.

    Attributes:
      meaning: description with shape and unit.
      compute: the function of a rollout batch; None if the stages compute the value anyway.
      cost: the forward pass of theta that it adds: `TARGET_PASS`, `BRANCH_PASS`, or "" for none.
      needs: its requirements, some of those above.
    """

    meaning: str
    compute: Callable[[RolloutBatch], jax.Array] | None = None
    cost: str = ""
    needs: tuple[str, ...] = ()


def _matches(batch: RolloutBatch) -> jax.Array:
    assert batch.scores is not None
    assert batch.table is not None
    target, present = (x[:, :, None] for x in (batch.forks.target, batch.forks.present))
    return matches(batch.scores.likeliest[..., 0], target, present, batch.table)


def _elsewhere(batch: RolloutBatch) -> jax.Array:
    s, forked = batch.settings, batch.forked
    tokens, segment = document_tokens(forked.documents.trunk, len(s.prompt), s.bos)
    length, fork = (segment > 0).sum(axis=-1), forked.forks.position
    position = other_positions(forked.keys, fork, length, s.min_prefix, s.horizon)
    there = batch.at_forks(forks_of(tokens, segment, position, s.horizon))
    return batch.evidence(batch.scores_of(there).logprob, there.present)


def _in_another(batch: RolloutBatch) -> jax.Array:
    """Score each thought in the previous document, and those of the first document in the last."""
    roll = lambda x, shift: jax.tree.map(lambda y: jnp.roll(y, shift, axis=0), x)
    at, target = batch.rollout.branches, batch.rollout.target
    moved = roll(batch.rollout.thoughts, -1)
    branches = lay_out(moved, target, at.fork, at.segment, batch.vocabulary)
    trunk, cache = batch.rollout.trunk, batch.forked.documents.cache
    scores = transplanted_scores(batch.model, trunk, cache, branches, target, batch.vocabulary)
    return batch.evidence(batch.grouped(roll(scores.logprob, 1)), roll(batch.forks.present, 1))


READINGS = {
    "baseline": Reading(
        "nothing more: declares that the reward needs `Outcome.baseline` and `baseline_logprobs`",
        needs=(TEXT, BASELINE),
    ),
    "matches": Reading(
        "[B, K, G] bool: the likeliest token after the thought matches the text, byte for byte",
        _matches,
        needs=(TEXT, TOKEN_BYTES),
    ),
    "elsewhere": Reading(
        "[B, K, G] nats: evidence of text from another position of the document after the thought",
        _elsewhere,
        cost=TARGET_PASS,
        needs=(TEXT,),
    ),
    "in_another": Reading(
        "[B, K, G] nats: evidence of another document's target after the thought, moved there",
        _in_another,
        cost=BRANCH_PASS,
        needs=(TEXT, OTHER_DOCUMENT),
    ),
    "answers": Reading(
        "`rlp.objectives.outcome.Answers`, [B, 1, G] each: graded answers of the responses",
        needs=(PROBLEMS,),
    ),
    "thought_tokens": Reading(
        "[B, K, G, L] int32: ids of the thought's actions, padded after `length` of them",
        lambda batch: batch.grouped(batch.rollout.thoughts.actions),
    ),
    "step": Reading(
        "int32: number of training steps before this one; 0 in held-out evaluation",
        lambda batch: jnp.asarray(batch.forked.step, jnp.int32),
    ),
    "entropy": Reading(
        "[B, N, L] nats, of `Actions`: entropy of the distribution of each action at the sampling "
        "temperature; carries a gradient",
    ),
}


def readings(batch: RolloutBatch) -> dict[str, jax.Array]:
    """Compute the readings that the settings' objective declares, by name."""
    declared = {name: READINGS[name].compute for name in find(batch.settings.objective).reads}
    return {name: compute(batch) for name, compute in declared.items() if compute}


def costs(objective: str) -> list[str]:
    """Return the forward passes that the readings of an objective add, in their order."""
    return [cost for name in find(objective).reads if (cost := READINGS[name].cost)]


def needs(objective: str) -> set[str]:
    """Return the requirements of the readings of an objective."""
    return {need for name in find(objective).reads for need in READINGS[name].needs}


def check(objective: str) -> None:
    """Check that the readings of an objective exist and can be combined.

    Raises:
      UserError: If one does not exist or two exclude each other; names them.
    """
    for name in find(objective).reads:
        if name not in READINGS:
            near = difflib.get_close_matches(name, READINGS, 1, 0.6)
            cure = f"did you mean {near[0]}?" if near else f"use one of {', '.join(READINGS)}"
            raise UserError(
                f"objective={objective!r} declares the unknown reading {name!r}; {cure}"
            )
    if {TEXT, PROBLEMS} <= needs(objective):
        texts = [name for name in find(objective).reads if TEXT in READINGS[name].needs]
        raise UserError(
            f"objective={objective!r} reads answers and {texts[0]}, but no text follows a response "
            "to a problem; declare only one of them"
        )
