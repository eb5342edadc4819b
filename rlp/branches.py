"""The slots of a branch, and the documents that branches leave.

A branch has W = L + H + 1 slots, each with its own place whatever the thought's length:

    slot      0        1 … L            L + 1      L + 2 … L + H
    token     <think>  c_1 … c_L        </think>   x_t … x_{t+H-2}

Action u (1 … L) is predicted by slot u - 1; target token x_{t+h} by slot L + 1 + h. A closing tag,
sampled or appended, always stands in slot L + 1; slots between the thought's last word and the tag
are dead. Positions count live tokens only, so the network sees the thought without the gap.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from models.tree import Branches, Trunk
from rlp.data.batch import Batch


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The token ids that the method must know.

    Attributes:
      think_open: the tag that starts a thought; put there, never sampled.
      think_close: the tag that ends one; an action when sampled.
      pad: fills rows and dead slots.
      not_in_thoughts: ids that a thought cannot hold (specials other than the closing tag, and
        rows of the embedding that the tokenizer does not use).
      not_in_documents: ids that document text cannot hold when it is scored as evidence.
    """

    think_open: int
    think_close: int
    pad: int
    not_in_thoughts: tuple[int, ...]
    not_in_documents: tuple[int, ...]


def vocabulary(
    *,
    think_open: int,
    think_close: int,
    pad: int,
    bos: int | None,
    eos: int,
    used: int,
    size: int,
) -> Vocabulary:
    """The vocabulary of a tokenizer with `used` ids in an embedding of `size` rows."""
    unused = tuple(range(used, size))
    never = {think_open, pad} | ({bos} if bos is not None else set())
    # Where padding and end of text share an id, it is text: padding is masked by segment.
    documents = (never - {eos}) | {think_close}
    return Vocabulary(
        think_open=think_open,
        think_close=think_close,
        pad=pad,
        not_in_thoughts=tuple(sorted(never | {eos})) + unused,
        not_in_documents=tuple(sorted(documents)) + unused,
    )


@flax.struct.dataclass
class Forks:
    """Branches of every row: where they leave, and what follows. N = K · G."""

    position: jax.Array  # [B, K] int32, t, in tokens of the document
    target: jax.Array  # [B, K, H] int32, x_t … x_{t+H-1}


@flax.struct.dataclass
class Thoughts:
    """What the policy sampled: the actions of all branches."""

    actions: jax.Array  # [B, N, L] int32; sampled ids, a sampled closing tag included; then pad
    length: jax.Array  # [B, N] int32, |c|: number of actions
    closed: jax.Array  # [B, N] bool: the last action is the closing tag
    logprobs: jax.Array  # [B, N, L] nats, behaviour policy, at the sampling temperature; then 0

    @property
    def words(self) -> jax.Array:
        """Number of sampled tokens that are not the closing tag, [B, N]."""
        return self.length - self.closed


def document_trunk(batch: Batch, prompt: Sequence[int] = ()) -> Trunk:
    """The rows as trunks, with a thinking prompt before the document when there is one.

    Rows with a prompt must hold one document each.
    """
    tokens, segment, position = map(jnp.asarray, (batch.tokens, batch.segment, batch.position))
    if prompt:
        rows = lambda x: jnp.broadcast_to(x[None, :], (tokens.shape[0], len(prompt)))
        before = jnp.asarray(np.array(prompt, np.int32))
        tokens = jnp.concatenate([rows(before), tokens], axis=1)
        segment = jnp.concatenate([rows(jnp.ones_like(before)), segment], axis=1)
        place = jnp.arange(len(prompt), dtype=jnp.int32)
        position = jnp.concatenate([rows(place), position + len(prompt)], axis=1)
    return Trunk(tokens=tokens, segment=segment, position=position)


def make_forks(batch: Batch, position: jax.Array, horizon: int) -> Forks:
    """Forks at `position` [B, K] of single-document rows, with their targets."""
    place = position[:, :, None] + jnp.arange(horizon, dtype=jnp.int32)[None, None, :]
    target = jnp.take_along_axis(jnp.asarray(batch.tokens)[:, None, :], place, axis=2)
    return Forks(position=position, target=target)


def empty_branches(
    fork: jax.Array, segment: jax.Array, slots: int, vocabulary: Vocabulary
) -> Branches:
    """Branches [B, N] that hold their opening tag and nothing else."""
    shape = (*fork.shape, slots)
    slot = jnp.arange(slots, dtype=jnp.int32)[None, None, :]
    return Branches(
        tokens=jnp.broadcast_to(
            jnp.where(slot == 0, vocabulary.think_open, vocabulary.pad), shape
        ).astype(jnp.int32),
        position=fork[:, :, None] + slot,
        live=jnp.broadcast_to(slot == 0, shape),
        segment=segment,
        fork=fork,
    )


def lay_out(
    thoughts: Thoughts,
    target: jax.Array,
    fork: jax.Array,
    segment: jax.Array,
    vocabulary: Vocabulary,
) -> Branches:
    """All W slots of branches with these thoughts and targets.

    Args:
      thoughts: [B, N, L].
      target: [B, N, H] int32.
      fork: [B, N], trunk position (prompt included) where each branch leaves.
      segment: [B, N], document of the row.
      vocabulary: for the tags.
    """
    limit, horizon = thoughts.actions.shape[-1], target.shape[-1]
    words = thoughts.words[..., None]  # [B, N, 1]
    tag = lambda id_: jnp.full_like(words, id_)
    place = lambda n: jnp.arange(n, dtype=jnp.int32)[None, None, :]
    always = jnp.ones_like(words, bool)
    is_word = place(limit) < words
    tokens = [
        tag(vocabulary.think_open),
        jnp.where(is_word, thoughts.actions, vocabulary.pad),
        tag(vocabulary.think_close),
        target[..., :-1],
    ]
    after = jnp.broadcast_to(always, (*words.shape[:2], horizon))
    offset = [
        jnp.zeros_like(words),
        jnp.broadcast_to(place(limit) + 1, thoughts.actions.shape),
        words + 1 + place(horizon),
    ]
    return Branches(
        tokens=jnp.concatenate(tokens, axis=-1).astype(jnp.int32),
        position=fork[..., None] + jnp.concatenate(offset, axis=-1).astype(jnp.int32),
        live=jnp.concatenate([always, is_word, after], axis=-1),
        segment=segment,
        fork=fork,
    )
