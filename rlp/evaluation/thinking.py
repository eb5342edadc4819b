"""Thoughts at forks of documents, scored with and without them by the same network."""

import jax

from models.transformer import Params, bind
from models.tree import forward
from rlp.data.batch import Batch
from rlp.engine.branches import document_trunk
from rlp.engine.method import Method
from rlp.engine.scoring import no_think_scores
from rlp.engine.stages import sample_thoughts
from rlp.engine.step import credit_of, outcome_of
from rlp.engine.token_bytes import TokenBytes
from rlp.objectives import equations


def think(
    method: Method,
    params: Params,
    batch: Batch,
    key: jax.Array,
    table: TokenBytes | None = None,
) -> dict:
    """A rollout, scored with and without its thoughts by the same network; `table` as of
    `step.evidence_stage`."""
    s, model, own = method.settings, bind(method.model, params), method.vocabulary
    stage = (method.model, s, own)
    forked, rollout = sample_thoughts(*stage, params, batch, key)
    forks = forked.forks
    hidden = forward(model, document_trunk(batch)) if s.prompt else forked.documents.hidden
    no_think = no_think_scores(model, hidden, forks.position, forks.target, own)
    # The reward and the advantage are those that training would see, with phi = theta.
    found, reasoned = outcome_of(*stage, params, forked, rollout, no_think.logprob, 0, table)
    credit = credit_of(s, found)
    total = lambda scores: scores.logprob.sum(axis=-1)
    return {
        "rollout": rollout,
        "target": forks.target,
        "reasoned": reasoned,
        "no_think": no_think,
        "gain": equations.information_gain(total(reasoned), total(no_think)),
        "rewards": credit.rewards,
        "advantages": credit.advantages,
    }
