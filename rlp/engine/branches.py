"""The slots of a branch, and the documents that branches leave.

The tags are O and C token ids long. A branch has W = O + L + C + H - 1 slots, each with its own
place whatever the thought's length:

    tokens   opening tag   thought     appended tag   its last   target
             o_1 … o_O     c_1 … c_L   k_1 … k_{C-1}  k_C        x_t … x_{t+H-2}
    slots    O             L           C - 1          1          H - 1

Action u (1 … L) is predicted by slot O + u - 2; target token x_{t+h} by slot W - H + h. The last
token of a closing tag, sampled or appended, always stands in slot W - H. Its other tokens stay
where they were sampled, among the actions; a thought that did not close by itself has them in the
slots between, which are dead otherwise, as are those of actions that were not taken. Positions
count live tokens only, so the network sees the thought without the gaps.
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
      think_open: ids of the tag that starts a thought; put there, never sampled.
      think_close: ids of the tag that ends one; actions when sampled. A thought is closed by
        exactly these ids, not by others that read the same.
      pad: fills rows and dead slots.
      not_in_thoughts: ids that a thought cannot hold (specials other than the closing tag, and
        rows of the embedding that the tokenizer does not use).
      not_in_documents: ids that document text cannot hold when it is scored as evidence. The
        pieces of a tag of several tokens are ordinary text, here and in thoughts.
    """

    think_open: tuple[int, ...]
    think_close: tuple[int, ...]
    pad: int
    not_in_thoughts: tuple[int, ...]
    not_in_documents: tuple[int, ...]


def vocabulary(
    *,
    think_open: tuple[int, ...],
    think_close: tuple[int, ...],
    pad: int,
    bos: tuple[int, ...],
    eos: int,
    separator: int,
    used: int,
    size: int,
) -> Vocabulary:
    """The vocabulary of a tokenizer with `used` ids in an embedding of `size` rows.

    A thought can hold neither `eos`, which ends a text, nor `separator`, which ends a document.

    Raises:
      ValueError: the closing tag has a token that a thought cannot hold.
    """
    unused = tuple(range(used, size))
    whole = lambda tag: set(tag) if len(tag) == 1 else set()
    never = whole(think_open) | {pad, *bos}
    ends = {eos, separator}
    # Padding or bos that shares an id with an end of text is text: padding is masked by segment.
    documents = (never - ends) | whole(think_close)
    if amiss := set(think_close) & (never | ends):
        raise ValueError(
            f"the ids {sorted(amiss)} of the closing tag {think_close} are also those of bos, eos, "
            "separator, padding or the opening tag, so no thought could close; set data.bos, "
            "data.eos and data.separator to other tokens"
        )
    return Vocabulary(
        think_open=think_open,
        think_close=think_close,
        pad=pad,
        not_in_thoughts=tuple(sorted(never | ends)) + unused,
        not_in_documents=tuple(sorted(documents)) + unused,
    )


def response_vocabulary(words: Vocabulary, opening: tuple[int, ...], end: int) -> Vocabulary:
    """The vocabulary of responses to problems, in which the closing thinking tag is a word.

    Args:
      words: of thoughts.
      opening: takes the place of the opening tag.
      end: takes the place of the closing tag.
    """
    never = tuple(token for token in words.not_in_thoughts if token != end)
    return dataclasses.replace(words, think_open=opening, think_close=(end,), not_in_thoughts=never)


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
    closed: jax.Array  # [B, N] bool: the last actions are the closing tag
    logprobs: jax.Array  # [B, N, L] nats, behaviour policy, at the sampling temperature; then 0

    def words(self, vocabulary: Vocabulary) -> jax.Array:
        """Number of sampled tokens that are not of the closing tag, [B, N]."""
        return self.length - len(vocabulary.think_close) * self.closed


def closes(actions: jax.Array, last: jax.Array, tag: tuple[int, ...]) -> jax.Array:
    """Whether the actions [..., L] up to number `last`, counted from 0, end with the closing tag
    and say something before it; [...] bool."""
    size = len(tag)
    if size >= actions.shape[-1]:
        return jnp.zeros(actions.shape[:-1], bool)
    end = jax.lax.dynamic_slice_in_dim(actions, last - size + 1, size, axis=-1)
    return _are(end, tag) & (last >= size)


def unclosable(actions: jax.Array, number: jax.Array, tag: tuple[int, ...]) -> jax.Array:
    """Where the last token of the closing tag is banned, since the tag would be the whole thought.

    A thought has at least one word. The rule of sampler and trainer.

    Args:
      actions: [..., L]; read are those before the tag's last token.
      number: [M], numbers of the actions in question, counted from 0.
      tag: ids of the closing tag.

    Returns:
      [..., M] bool.
    """
    before = len(tag) - 1
    begun = _are(actions[..., :before], tag[: min(before, actions.shape[-1])])
    here = jnp.reshape(number == before, (1,) * begun.ndim + (-1,))
    return begun[..., None] & here


def _are(tokens: jax.Array, ids: tuple[int, ...]) -> jax.Array:
    """Whether the tokens [..., n] are these n ids, [...] bool."""
    expected = jnp.broadcast_to(jnp.array(ids, jnp.int32), tokens.shape)
    return jnp.all(tokens == expected, axis=-1)


def document_trunk(batch: Batch, prompt: Sequence[int] = (), bos: int = 0) -> Trunk:
    """The rows as trunks, with a thinking prompt before the text when there is one.

    Rows with a prompt must hold one document each. The prompt goes behind the first `bos` tokens of
    a row, so that a trunk has one bos at its beginning, as any text has.
    """
    tokens, segment, position = map(jnp.asarray, (batch.tokens, batch.segment, batch.position))
    if prompt:
        rows = lambda x: jnp.broadcast_to(x[None, :], (tokens.shape[0], len(prompt)))
        before = jnp.asarray(np.array(prompt, np.int32))
        place = bos + jnp.arange(len(prompt), dtype=jnp.int32)

        def put(x: jax.Array, new: jax.Array, further: int = 0) -> jax.Array:
            return jnp.concatenate([x[:, :bos], rows(new), x[:, bos:] + further], axis=1)

        tokens, segment = put(tokens, before), put(segment, jnp.ones_like(before))
        position = put(position, place, len(prompt))
    return Trunk(tokens=tokens, segment=segment, position=position)


def document_tokens(trunk: Trunk, prompt: int, bos: int) -> tuple[jax.Array, jax.Array]:
    """Tokens and segments of the rows that `document_trunk` made a trunk of, [B, T] each.

    Args:
      prompt: tokens of the thinking prompt, behind the first `bos` of a row.
    """
    without = lambda x: jnp.concatenate([x[:, :bos], x[:, bos + prompt :]], axis=1)
    return without(trunk.tokens), without(trunk.segment)


def make_forks(batch: Batch, position: jax.Array, horizon: int) -> Forks:
    """Forks at `position` [B, K] of single-document rows, with their targets."""
    tokens = jnp.asarray(batch.tokens)
    return Forks(position=position, target=target_tokens(tokens, position, horizon))


def target_tokens(tokens: jax.Array, position: jax.Array, horizon: int) -> jax.Array:
    """The H tokens from every position on, [B, K, H] int32: tokens [B, T], positions [B, K]."""
    place = position[:, :, None] + jnp.arange(horizon, dtype=jnp.int32)[None, None, :]
    return jnp.take_along_axis(tokens[:, None, :], place, axis=2)


def empty_branches(
    fork: jax.Array, segment: jax.Array, slots: int, vocabulary: Vocabulary
) -> Branches:
    """Branches [B, N] that hold their opening tag and nothing else."""
    shape, opening = (*fork.shape, slots), vocabulary.think_open
    slot = jnp.arange(slots, dtype=jnp.int32)[None, None, :]
    tokens = np.full(slots, vocabulary.pad, np.int32)
    tokens[: len(opening)] = opening
    return Branches(
        tokens=jnp.broadcast_to(jnp.asarray(tokens), shape),
        position=fork[:, :, None] + slot,
        live=jnp.broadcast_to(slot < len(opening), shape),
        segment=segment,
        fork=fork,
    )


def with_target(branches: Branches, target: jax.Array) -> Branches:
    """The branches with another target in their last slots, [B, N, H] int32."""
    slots = branches.tokens.shape[-1]
    tokens = jnp.concatenate(
        [branches.tokens[..., : slots - target.shape[-1] + 1], target[..., :-1]], axis=-1
    )
    return dataclasses.replace(branches, tokens=tokens)


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
    opening, rest = len(vocabulary.think_open), len(vocabulary.think_close) - 1
    closed = thoughts.closed[..., None]  # [B, N, 1]
    kept = thoughts.length[..., None] - closed  # actions that stay in their slots
    place = lambda n: jnp.arange(n, dtype=jnp.int32)[None, None, :]
    spread = lambda x, n: jnp.broadcast_to(x, (*kept.shape[:2], n))
    tag = lambda ids: spread(jnp.array(ids, jnp.int32), len(ids))
    is_kept = place(limit) < kept
    last = opening + kept + jnp.where(closed, 0, rest)  # of the closing tag's last token
    tokens = [
        tag(vocabulary.think_open),
        jnp.where(is_kept, thoughts.actions, vocabulary.pad),
        tag(vocabulary.think_close),
        target[..., :-1],
    ]
    live = [
        spread(jnp.array(True), opening),
        is_kept,
        spread(~closed, rest),
        spread(jnp.array(True), horizon),
    ]
    offset = [
        spread(place(opening), opening),
        spread(opening + place(limit), limit),
        opening + kept + place(rest),
        last + place(horizon),
    ]
    return Branches(
        tokens=jnp.concatenate(tokens, axis=-1).astype(jnp.int32),
        position=fork[..., None] + jnp.concatenate(offset, axis=-1).astype(jnp.int32),
        live=jnp.concatenate(live, axis=-1),
        segment=segment,
        fork=fork,
    )
