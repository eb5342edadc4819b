"""Log-probabilities and evidence: how likely the text that follows is, with and without a thought.

`token_scores` is the only place that turns hidden states into log-probabilities, for the update,
the evidence and the baseline alike. It works on chunks of tokens and computes each chunk's logits
again in the backward pass, so that [tokens, V] never exists in full.
"""

import functools
from collections.abc import Sequence

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
from rlp.engine.branches import Vocabulary, unclosable


@flax.struct.dataclass
class Scores:
    """How a network predicts given tokens; three arrays of the tokens' shape."""

    logprob: jax.Array  # nats
    entropy: (
        jax.Array
    )  # nats, of the whole distribution; carries a gradient where that is asked for
    likeliest: jax.Array  # int32: the likeliest token, of several the first


def mask_logits(
    logits: jax.Array,
    banned: Sequence[int],
    temperature: float,
    close: int | None = None,
    unclosable: jax.Array | None = None,
) -> jax.Array:
    """The measure that sampler and trainer share: logits / temperature without banned tokens.

    Args:
      logits: [M, V] float32.
      banned: ids that cannot occur.
      temperature: above 0.
      close: last token of the closing tag.
      unclosable: [M] bool, rows in which it is banned (see `branches.unclosable`).
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
    """Log-probability of every target, with the entropy of its distribution.

    Args:
      model: reads the logits.
      hidden: final hidden states [B, ..., D] that predict the targets.
      targets: ids [B, ...].
      banned, temperature, close, unclosable: as in `mask_logits`, with `unclosable` [B, ...].
      entropy_gradient: whether the entropy carries a gradient.
    """
    shape, rows = targets.shape, targets.shape[0]
    if unclosable is not None:
        unclosable = jnp.broadcast_to(unclosable, shape).reshape(rows, -1)

    def score(inputs: tuple) -> Scores:
        hidden, targets, unclosable = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        logits = constrain(model.logits(hidden), "rows", "vocab")
        logits = mask_logits(logits, banned, temperature, close, unclosable)
        return jax.tree.map(
            lambda x: x.reshape(rows, -1), _scores(entropy_gradient, logits, targets)
        )

    inputs = (hidden.reshape(rows, -1, hidden.shape[-1]), targets.reshape(rows, -1), unclosable)
    each = inputs[1].shape[1]
    here = -(-rows // shards("rows"))  # rows that a device holds
    chunks = min(each, logit_chunks(here * each, model.config.vocab_size))
    if chunks == 1:
        scores = score(inputs)
    else:  # of some tokens of every row, so that each chunk has a share of every device's rows
        size = -(-each // chunks)
        pad = lambda x: jnp.pad(x, [(0, 0), (0, chunks * size - each)] + [(0, 0)] * (x.ndim - 2))
        split = lambda x: pad(x).reshape(rows, chunks, size, *x.shape[2:]).swapaxes(0, 1)
        scores = jax.lax.map(jax.checkpoint(score), jax.tree.map(split, inputs))
        scores = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(rows, -1)[:, :each], scores)
    return jax.tree.map(lambda x: x.reshape(shape), scores)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(entropy_gradient: bool, logits: jax.Array, targets: jax.Array) -> Scores:
    """Scores of targets [M] under logits [M, V]. The log-probability carries a gradient, and the
    entropy where that is asked for."""
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
    entropy_gradient: bool, kept: tuple, cotangent: Scores
) -> tuple[jax.Array, None]:
    logits, normalizer, targets = kept
    is_target = jnp.arange(logits.shape[-1])[None, :] == targets[:, None]
    probabilities = jnp.exp(logits - normalizer[:, None])
    slope = cotangent.logprob[:, None] * (is_target - probabilities)
    if entropy_gradient:  # dH/dz = -p (log p + H)
        surprise = probabilities * (logits - normalizer[:, None])
        entropy = -surprise.sum(axis=-1, keepdims=True)
        slope -= cotangent.entropy[:, None] * (surprise + probabilities * entropy)
    return slope, None


_scores.defvjp(_scores_forward, _scores_backward)


def logit_chunks(count: int, vocab_size: int) -> int:
    """Into how many chunks a device cuts the logits of `count` tokens."""
    return max(1, -(-count * vocab_size // choices().logits))


def action_scores(
    model: Transformer,
    trunk: Trunk,
    cache: Cache,
    branches: Branches,
    actions: jax.Array,
    vocabulary: Vocabulary,
    temperature: float,
    *,
    entropy_gradient: bool = False,
) -> Scores:
    """How a network predicts every action of thoughts, [B, N, L]; all slots at once.

    Args:
      model: read the trunk.
      trunk, cache: the documents, thinking prompt included.
      branches: slots 0 … O + L - 2, of which the last L predict actions.
      actions: [B, N, L].
      vocabulary: tags and banned ids.
      temperature: of the sampler.
      entropy_gradient: as of `token_scores`.
    """
    hidden, _ = extend(model, trunk, cache, branches)
    return _of_actions(model, hidden, actions, vocabulary, temperature, entropy_gradient)


def branch_scores(
    model: Transformer,
    trunk: Trunk,
    cache: Cache,
    branches: Branches,
    actions: jax.Array,
    target: jax.Array,
    vocabulary: Vocabulary,
    temperature: float,
    *,
    entropy_gradient: bool = False,
) -> tuple[Scores, Scores]:
    """How a network predicts every action of thoughts, and every token of the target after them:
    [B, N, L] and [B, N, H], in one pass.

    Args:
      branches: all W slots.
      target: [B, N, H].
      others: as of `action_scores`.
    """
    hidden, _ = extend(model, trunk, cache, branches)
    after = token_scores(
        model, hidden[:, :, -target.shape[-1] :], target, vocabulary.not_in_documents
    )
    scores = _of_actions(model, hidden, actions, vocabulary, temperature, entropy_gradient)
    return scores, after


def _of_actions(
    model: Transformer,
    hidden: jax.Array,
    actions: jax.Array,
    vocabulary: Vocabulary,
    temperature: float,
    entropy_gradient: bool,
) -> Scores:
    """Scores of the actions, from the hidden states of slots 0, 1, … of their branches."""
    close, limit = vocabulary.think_close, actions.shape[-1]
    first = len(vocabulary.think_open) - 1
    return token_scores(
        model,
        hidden[:, :, first : first + limit],
        actions,
        vocabulary.not_in_thoughts,
        temperature,
        close[-1],
        unclosable(actions, jnp.arange(limit), close),
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
    """How the policy predicts every target token after its thought, [B, N, H].

    Continues the caches of the rollout: only the slots from the last action on are run.
    """
    horizon, close = target.shape[-1], len(vocabulary.think_close)
    count = close + horizon  # the last action, whose slot no action needed, the tag, the target
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
    """How the policy predicts every target token after a thought that was sampled elsewhere,
    [B, N, H]. All slots of the branches are run."""
    hidden, _ = extend(model, trunk, trunk_cache, branches)
    return token_scores(
        model, hidden[:, :, -target.shape[-1] :], target, vocabulary.not_in_documents
    )


def no_think_scores(
    model: Transformer,
    hidden: jax.Array,
    fork: jax.Array,
    target: jax.Array,
    vocabulary: Vocabulary,
) -> Scores:
    """How a network predicts every target token without a thought, [B, K, H].

    Args:
      model: policy or baseline.
      hidden: its final hidden states [B, T, D] over the documents.
      fork: [B, K], t.
      target: [B, K, H].
      vocabulary: for the ids that document text cannot hold.
    """
    batch, forks, horizon = target.shape
    place = fork[:, :, None] - 1 + jnp.arange(horizon, dtype=jnp.int32)[None, None, :]
    place = place.reshape(batch, -1, 1)
    chosen = jnp.take_along_axis(hidden, place, axis=1).reshape(batch, forks, horizon, -1)
    return token_scores(model, chosen, target, vocabulary.not_in_documents)


def document_scores(
    model: Transformer, trunk: Trunk, vocabulary: Vocabulary | None = None
) -> Scores:
    """How a network predicts the token at every position, [B, T].

    Position 0 of a document and padding have no prediction and hold 0. With a vocabulary, ids that
    document text cannot hold are banned; without, as in next-token training, nothing is.
    """
    hidden = forward(model, trunk)
    banned = vocabulary.not_in_documents if vocabulary else ()
    scores = token_scores(model, hidden[:, :-1], trunk.tokens[:, 1:], banned)
    predicted = predicted_tokens(trunk)
    place = lambda x: jnp.where(predicted, jnp.pad(x, ((0, 0), (1, 0))), jnp.zeros((), x.dtype))
    return jax.tree.map(place, scores)


def predicted_tokens(trunk: Trunk) -> jax.Array:
    """Whether the token at each place is predicted by the one before it, [B, T] bool."""
    same = trunk.segment[:, 1:] == trunk.segment[:, :-1]
    return jnp.pad(same & (trunk.segment[:, 1:] > 0), ((0, 0), (1, 0)))


def learnt_tokens(trunk: Trunk, loss_mask: jax.Array | np.ndarray | None) -> jax.Array:
    """The predicted tokens that a next-token loss is the mean over, [B, T] bool.

    Args:
      trunk: rows.
      loss_mask: of the batch, [B, T] bool; None for all.
    """
    predicted = predicted_tokens(trunk)
    return predicted if loss_mask is None else predicted & loss_mask
