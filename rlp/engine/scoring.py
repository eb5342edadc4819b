"""Log-probabilities of actions, of targets with and without a thought, and of documents.

All of them are computed by `token_scores`: for the update, the evidence and the baseline alike
(`rlp.engine.text_loss` sums those of documents in a training loss). It works on chunks of tokens
and recomputes the logits of each chunk in the backward pass, so that [tokens, V] is never
materialized. All scores are in nats.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from models.backend import choices
from models.cache import Cache, grown
from models.mask import HIDDEN_SCORE
from models.sharding import constrain, shards
from models.transformer import Transformer
from models.tree import Branches, Trunk, extend, forward
from rlp.engine.branches import Forks, Vocabulary, unclosable


@flax.struct.dataclass
class Scores:
    """A network's predictions of some tokens; all arrays have the shape of the tokens."""

    logprob: jax.Array  # nats, of the token
    entropy: jax.Array  # nats, of the whole distribution; has a gradient only on request
    likeliest: jax.Array  # int32: the likeliest token, the first one of several


def mask_logits(
    logits: jax.Array,
    banned: Sequence[int],
    temperature: float | jax.Array,
    close: int | None = None,
    unclosable: jax.Array | None = None,
) -> jax.Array:
    """Return logits / temperature with banned tokens masked, [M, V]; sampler and trainer share it.

    Args:
      logits: [M, V] float32.
      banned: ids that are banned in all rows.
      temperature: above 0; a number, or one per row, [M, 1].
      close: id of the last token of the closing tag.
      unclosable: [M] bool, rows in which `close` is banned, too (see `branches.unclosable`).
    """
    size = logits.shape[-1]
    allowed = np.ones(size, bool)
    allowed[list(banned)] = False
    keep = jnp.asarray(allowed)[None, :]
    if unclosable is not None:
        is_close = jnp.arange(size)[None, :] == close
        keep = keep & ~(unclosable[:, None] & is_close)
    return jnp.where(keep, logits / temperature, HIDDEN_SCORE)


def token_scores(
    model: Transformer,
    hidden: jax.Array,
    targets: jax.Array,
    banned: Sequence[int] = (),
    temperature: float = 1.0,
    close: int | None = None,
    unclosable: jax.Array | None = None,
    *,
    entropy_gradient: bool = False,
) -> Scores:
    """Score targets: log-probability, entropy of the distribution, likeliest token; [B, ...] each.

    Args:
      model: computes logits from hidden states.
      hidden: final hidden states [B, ..., D] that predict the targets.
      targets: [B, ...] int32 ids.
      banned, temperature, close, unclosable: as in `mask_logits`, with `unclosable` [B, ...].
      entropy_gradient: whether the entropy carries a gradient, too.
    """
    shape, rows = targets.shape, targets.shape[0]
    if unclosable is not None:
        unclosable = jnp.broadcast_to(unclosable, shape).reshape(rows, -1)

    def score(inputs: tuple) -> Scores:
        hidden, targets, unclosable = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        logits = constrain(model.logits(hidden), "rows", "vocab")
        logits = mask_logits(logits, banned, temperature, close, unclosable)
        return jax.tree.map(
            lambda x: x.reshape(rows, -1), scores_of_logits(entropy_gradient, logits, targets)
        )

    inputs = (hidden.reshape(rows, -1, hidden.shape[-1]), targets.reshape(rows, -1), unclosable)
    length = inputs[1].shape[1]  # tokens per row
    if logits_are_kept(_local_tokens(inputs), model.config.vocab_size):
        scores = score(inputs)
    else:
        chunks = in_chunks(model.config.vocab_size, inputs)
        scores = jax.lax.map(jax.checkpoint(score), chunks)
        scores = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(rows, -1)[:, :length], scores)
    return jax.tree.map(lambda x: x.reshape(shape), scores)


def in_chunks(vocab_size: int, inputs: Any) -> Any:
    """Split arrays [rows, tokens, …] into chunks, [chunks, rows, tokens of a chunk, …], so that a
    device has at most `Choices.logits` logits of a chunk in memory; the last tokens are padding.

    A chunk has some tokens of every row, so that all devices work on every chunk.
    """
    rows, length = jax.tree.leaves(inputs)[0].shape[:2]
    chunks = min(length, logit_chunks(_local_tokens(inputs), vocab_size))
    size = -(-length // chunks)
    pad = lambda x: jnp.pad(x, [(0, 0), (0, chunks * size - length)] + [(0, 0)] * (x.ndim - 2))
    split = lambda x: pad(x).reshape(rows, chunks, size, *x.shape[2:]).swapaxes(0, 1)
    return jax.tree.map(split, inputs)


def _local_tokens(inputs: Any) -> int:
    """Return the number of tokens that a device has of arrays [rows, tokens, …]."""
    rows, length = jax.tree.leaves(inputs)[0].shape[:2]
    return -(-rows // shards("rows")) * length


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scores_of_logits(entropy_gradient: bool, logits: jax.Array, targets: jax.Array) -> Scores:
    """Score targets [M] under logits [M, V]. The log-probability carries a gradient; the entropy
    does so if `entropy_gradient`."""
    return _scores_forward(entropy_gradient, logits, targets)[0]


def _scores_forward(
    entropy_gradient: bool, logits: jax.Array, targets: jax.Array
) -> tuple[Scores, tuple]:
    top = logits.max(axis=-1)
    weights = jnp.exp(logits - top[:, None])
    total = weights.sum(axis=-1)
    mean_logit = (weights * (logits - top[:, None])).sum(axis=-1) / total
    normalizer = jnp.log(total)
    chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - top
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scores = Scores(chosen - normalizer, normalizer - mean_logit, likeliest)
    return scores, (logits, top + normalizer, targets)


def _scores_backward(
    entropy_gradient: bool, residuals: tuple, cotangent: Scores
) -> tuple[jax.Array, None]:
    logits, normalizer, targets = residuals
    is_target = jnp.arange(logits.shape[-1])[None, :] == targets[:, None]
    probabilities = jnp.exp(logits - normalizer[:, None])
    slope = cotangent.logprob[:, None] * (is_target - probabilities)
    if entropy_gradient:  # dH/dz = -p (log p + H)
        surprise = probabilities * (logits - normalizer[:, None])
        entropy = -surprise.sum(axis=-1, keepdims=True)
        slope -= cotangent.entropy[:, None] * (surprise + probabilities * entropy)
    return slope, None


scores_of_logits.defvjp(_scores_forward, _scores_backward)


def logits_are_kept(count: int, vocab_size: int) -> bool:
    """Return whether the logits of `count` tokens of a device are computed at once and kept for the
    backward pass. Otherwise, they are computed in chunks, and again in that pass."""
    return count * vocab_size <= choices().kept_logits


def logit_chunks(count: int, vocab_size: int) -> int:
    """Return the number of chunks in which a device computes the logits of `count` tokens."""
    return max(1, -(-count * vocab_size // choices().logits))


def action_scores(
    model: Transformer,
    hidden: jax.Array,
    actions: jax.Array,
    vocabulary: Vocabulary,
    temperature: float,
    min_words: int,
    *,
    entropy_gradient: bool = False,
) -> Scores:
    """Score every action of thoughts, log pi(c_u | x_<t, c_<u), [B, N, L].

    Args:
      model: theta, or the reference.
      hidden: its final hidden states of the slots of the thoughts, [B, N, ≥ O + L - 1, D]; slots
        O - 1 … O + L - 2 predict actions.
      actions: [B, N, L] int32.
      vocabulary: tags and banned ids.
      temperature, min_words: of the sampler; the temperature is above 0.
      entropy_gradient: as in `token_scores`.
    """
    close, limit = vocabulary.think_close, actions.shape[-1]
    first = len(vocabulary.think_open) - 1
    return token_scores(
        model,
        hidden[:, :, first : first + limit],
        actions,
        vocabulary.not_in_thoughts,
        temperature,
        close[-1],
        unclosable(actions, jnp.arange(limit), close, min_words),
        entropy_gradient=entropy_gradient,
    )


def reasoned_scores(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    branch_cache: Cache,
    target: jax.Array,
    vocabulary: Vocabulary,
) -> Scores:
    """Score every target token after its thought, log p_theta(x_{t+h} | x_<t+h, c), [B, N, H].

    Their weighted sum is S_pred of eq. 3. Only the last C + H slots are computed, on the caches of
    the rollout.

    Args:
      model: theta, which sampled the thoughts.
      trunk, trunk_cache: the documents [B, P + T] and their cache.
      branches: all W slots, [B, N, W].
      branch_cache: of the rollout, slots 0 … O + L - 2.
      target: [B, N, H] int32.
      vocabulary: tags and banned ids.
    """
    horizon, close = target.shape[-1], len(vocabulary.think_close)
    count = close + horizon  # the last action, which predicted no other one; the tag; the target
    start = branches.tokens.shape[-1] - count
    room = grown(model.config, branch_cache, start + count)
    hidden, _ = extend(model, trunk, trunk_cache, branches, room, start, count)
    banned = vocabulary.not_in_documents
    return token_scores(model, hidden[:, :, close:], target, banned)


def transplanted_scores(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    target: jax.Array,
    vocabulary: Vocabulary,
) -> Scores:
    """Score every target token after a thought that was sampled at another fork, [B, N, H].

    Arguments as in `reasoned_scores`. All W slots of the branches are computed, since no cache of
    the rollout fits.
    """
    hidden, _ = extend(model, trunk, trunk_cache, branches)
    return token_scores(
        model, hidden[:, :, -target.shape[-1] :], target, vocabulary.not_in_documents
    )


def no_think_scores(
    model: Transformer,
    hidden: jax.Array,
    forks: Forks,
    vocabulary: Vocabulary,
) -> Scores:
    """Score every target token without a thought, log p(x_{t+h} | x_<t+h), [B, K, H]; 0 for those
    that the document does not have.

    Under the baseline phi, their weighted sum is S_ema of eq. 3.

    Args:
      model: theta, or the baseline phi.
      hidden: its final hidden states [B, T, D] of the documents.
      forks: [B, K], with targets of H tokens.
      vocabulary: for the ids that cannot occur in document text.
    """
    shape = forks.target.shape
    index = forks.position[:, :, None] - 1 + jnp.arange(shape[-1], dtype=jnp.int32)[None, None, :]
    index = jnp.minimum(index, hidden.shape[1] - 1).reshape(shape[0], -1, 1)
    predicting = jnp.take_along_axis(hidden, index, axis=1).reshape(*shape, -1)
    scores = token_scores(model, predicting, forks.target, vocabulary.not_in_documents)
    return where_present(scores, forks.present)


def where_present(scores: Scores, present: jax.Array) -> Scores:
    """Return scores that are 0 at the tokens that are not present; `present` broadcasts, bool."""
    return jax.tree.map(lambda x: jnp.where(present, x, jnp.zeros((), x.dtype)), scores)


def document_scores(
    model: Transformer, trunk: Trunk, vocabulary: Vocabulary | None = None
) -> Scores:
    """Score the token at every position of documents, [B, T].

    Scores are 0 for padding and for the first token of a document, which nothing predicts. With a
    vocabulary, ids that cannot occur in document text are banned; without one, as in next-token
    training, none are.
    """
    hidden = forward(model, trunk)
    banned = vocabulary.not_in_documents if vocabulary else ()
    scores = token_scores(model, hidden[:, :-1], trunk.tokens[:, 1:], banned)
    predicted = predicted_tokens(trunk)
    aligned = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0))), scores)
    return where_present(aligned, predicted)


def predicted_tokens(trunk: Trunk) -> jax.Array:
    """Return which tokens are predicted by the token before them, [B, T] bool."""
    same = trunk.segment[:, 1:] == trunk.segment[:, :-1]
    return jnp.pad(same & (trunk.segment[:, 1:] > 0), ((0, 0), (1, 0)))


def loss_tokens(trunk: Trunk, loss_mask: jax.Array | np.ndarray | None) -> jax.Array:
    """Return the tokens that the next-token loss is the mean over, [B, T] bool.

    Args:
      trunk: rows, [B, T].
      loss_mask: of the batch, [B, T] bool; None for all predicted tokens.
    """
    predicted = predicted_tokens(trunk)
    return predicted if loss_mask is None else predicted & loss_mask
