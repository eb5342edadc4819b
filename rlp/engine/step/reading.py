"""The stages before the rollout: choose forks, prefill documents, score targets alone."""

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
from rlp.engine.forks import SCORED, allowed_positions, in_band, select_forks, target_losses
from rlp.engine.rollout import read_documents
from rlp.engine.sampling import document_keys, fork_keys
from rlp.engine.scoring import document_scores, no_think_scores
from rlp.engine.settings import RLPSettings
from rlp.objectives import equations


@flax.struct.dataclass
class NoThink:
    """Log-probabilities of the targets without a thought."""

    policy: jax.Array  # [B, K], under theta: mean over the tokens of the target, nats per token
    baseline: jax.Array  # [B, K, H] nats, under phi (S_ema is their weighted sum); 0 without phi


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
    """Choose the forks of documents, and prefill the documents.

    Args:
      params: theta.
      scorer: parameters whose no-think loss or entropy ranks positions, for the rules of `SCORED`.
      batch: single-document rows, [B, T].
      key: root PRNG key of the run.
      step: number of steps before this one.
    """
    keys = document_keys(key, step, batch.index)
    s = settings
    scores = loss = None
    if s.positions in SCORED:
        tokens = document_scores(bind(model_config, scorer), document_trunk(batch), vocabulary)
        loss = -tokens.logprob
        scores = tokens.entropy if s.positions == "entropy" else loss
        scores = target_losses(loss, s.horizon) if s.positions == "band" else scores
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
        band=s.band,
        given=batch.forks,
    )
    inside = None
    if scores is not None and s.positions == "band":
        inside = in_band(jnp.take_along_axis(scores, fork, axis=1), s.band)
    trunk = document_trunk(batch, s.prompt, s.bos)
    points = ForkPoints(position=fork + len(s.prompt), segment=jnp.ones_like(fork))
    trunk = dataclasses.replace(trunk, forks=points)
    documents = read_documents(bind(model_config, params), trunk)
    forks = make_forks(batch, fork, s.horizon)
    unselected = None if loss is None else _loss_elsewhere(s, batch, fork, loss)
    return ForkedDocuments(documents, forks, unselected, keys, step, inside)


def _loss_elsewhere(
    settings: RLPSettings, batch: Batch, fork: jax.Array, loss: jax.Array
) -> jax.Array:
    """Return the mean of `loss` [B, T] over allowed positions that are not forks, [B] nats; nan if
    a document has none."""
    s, (documents, limit) = settings, loss.shape
    length = (batch.segment > 0).sum(axis=-1)
    others = allowed_positions(length, limit, s.min_prefix, s.horizon)
    others = others.at[jnp.arange(documents)[:, None], fork].set(False)
    return jnp.where(others, loss, 0.0).sum(axis=-1) / others.sum(axis=-1)


def no_think_stage(
    model_config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    params: Params,
    baseline: Params | None,
    batch: Batch,
    forked: ForkedDocuments,
) -> NoThink:
    """Score the targets of all forks without thoughts (S_ema of eq. 3 under the baseline phi).

    One pass per document and network serves all its forks.

    Args:
      params: theta.
      baseline: phi; None for `rlp.baseline="none"`.
      batch: single-document rows, [B, T].
      forked: the documents with all K forks.
    """
    s, forks, documents = settings, forked.forks, document_trunk(batch)

    def score(params, hidden=None):
        model = bind(model_config, params)
        hidden = forward(model, documents) if hidden is None else hidden
        return no_think_scores(model, hidden, forks, vocabulary).logprob

    # Without a prompt, the prefill is also the policy's no-think pass.
    policy = score(params, None if s.prompt else forked.documents.hidden)
    base = jnp.zeros_like(policy) if baseline is None else score(baseline)
    return NoThink(policy=equations.target_mean(policy, forks.present), baseline=base)
