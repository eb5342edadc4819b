"""Sample thoughts at forks of documents, and score targets with and without them."""

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
    """Sample G thoughts at each of K forks of documents, and score them with the same network.

    Rewards and advantages are those of training with phi = theta. To be traced by jit.

    Args:
      method: network, settings and vocabulary.
      params: theta.
      batch: single-document rows, [B, T].
      key: PRNG key of forks and sampling.
      table: bytes of the tokens, for an objective that reads `Outcome.matches`.

    Returns:
      The rollout; target [B, K, H], and which of its tokens are present, bool; scores of the
      targets, "reasoned" [B, K, G, H] and "no_think" [B, K, H], 0 for tokens that are not present;
      "gain" [B, K, G] in nats, summed over the target; "rewards" and "advantages" [B, K, G].
    """
    s, model, words = method.settings, bind(method.model, params), method.vocabulary
    stage = (method.model, s, words)
    forked, rollout = sample_thoughts(*stage, params, batch, key)
    forks = forked.forks
    hidden = forward(model, document_trunk(batch)) if s.prompt else forked.documents.hidden
    no_think = no_think_scores(model, hidden, forks, words)
    outcome, reasoned = outcome_of(*stage, params, forked, rollout, no_think.logprob, 0, table)
    credit = credit_of(s, outcome)
    total = lambda scores: scores.logprob.sum(axis=-1)
    return {
        "rollout": rollout,
        "target": forks.target,
        "present": forks.present,
        "reasoned": reasoned,
        "no_think": no_think,
        "gain": equations.information_gain(total(reasoned), total(no_think)),
        "rewards": credit.rewards,
        "advantages": credit.advantages,
    }
