"""The stages before a thought: forks are chosen, documents read, targets scored without one."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import ForkPoints, forward
from rlp.data.batch import Batch
from rlp.engine.branches import Vocabulary, document_trunk, make_forks
from rlp.engine.forked_documents import ForkedDocuments
from rlp.engine.forks import SCORED, allowed_places, select_forks
from rlp.engine.rollout import read_documents
from rlp.engine.sampling import document_keys, fork_keys
from rlp.engine.scoring import document_scores, no_think_scores
from rlp.engine.settings import RLPSettings


@flax.struct.dataclass
class NoThink:
    """How likely the targets are without a thought, [B, K]."""

    policy: jax.Array  # mean over the target, nats per token, of theta
    baseline: jax.Array  # [B, K, H], log-probabilities of phi; 0 when there is no baseline


def read_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    scorer: Params,
    batch: Batch,
    key: jax.Array,
    step: jax.Array | int,
) -> ForkedDocuments:
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
    trunk = document_trunk(batch, s.prompt, s.bos)
    points = ForkPoints(position=fork + len(s.prompt), segment=jnp.ones_like(fork))
    trunk = dataclasses.replace(trunk, forks=points)
    documents = read_documents(bind(model_config, params), trunk)
    forks = make_forks(batch, fork, s.horizon)
    unselected = None if loss is None else _loss_elsewhere(s, batch, fork, loss)
    return ForkedDocuments(documents, forks, unselected, keys, step)


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
    forked: ForkedDocuments,
) -> NoThink:
    """Scores the targets of all forks without thoughts, in one pass per document and network."""
    s, forks, documents = settings, forked.forks, document_trunk(batch)

    def score(params, hidden=None):
        model = bind(model_config, params)
        hidden = forward(model, documents) if hidden is None else hidden
        return no_think_scores(model, hidden, forks.position, forks.target, vocabulary).logprob

    # Without a prompt the reading is the policy's no-think pass.
    policy = score(params, None if s.prompt else forked.documents.hidden)
    base = jnp.zeros_like(policy) if baseline is None else score(baseline)
    return NoThink(policy=policy.mean(axis=-1), baseline=base)
