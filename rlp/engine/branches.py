"""The token slots of a branch, and the document trunks that branches fork from.

The opening and closing tags are O and C token ids long. A branch has W = O + L + C + H - 1 slots,
and each kind of token has fixed slots, whatever the length of the thought:

    tokens   opening tag   thought     appended tag   its last   target
             o_1 … o_O     c_1 … c_L   k_1 … k_{C-1}  k_C        x_t … x_{t+H-2}
    slots    O             L           C - 1          1          H - 1

Slot O + u - 2 predicts action u (1 … L), and slot W - H + h predicts target token x_{t+h}. Slot
W - H always holds the last token of the closing tag, sampled or appended. The other C - 1 tokens of
a sampled tag stay among the actions. If the tag was not sampled, they are appended in the C - 1
slots after the actions, which are dead otherwise, as are the slots of actions that were not taken.
Positions count live tokens only, so the network sees the thought without the gaps.
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
    """The token ids that rollout and scoring need.

    Attributes:
      think_open: O ids of the tag that opens a thought; inserted, never sampled.
      think_close: C ids of the tag that closes a thought; actions if they are sampled. Only
        exactly these ids close a thought, not others that decode to the same text.
      pad: fills rows and dead slots.
      not_in_thoughts: ids that cannot occur in a thought: special tokens other than the closing
        tag, and rows of the embedding that the tokenizer does not use.
      not_in_documents: ids that cannot occur in document text that is scored as evidence. The
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
    """Return the vocabulary of a tokenizer with `used` ids and an embedding of `size` rows.

    Neither `eos` (end of a text) nor `separator` (end of a document) can occur in a thought.

    Args:
      think_open, think_close: ids of the thinking tags.
      pad, bos, eos, separator: special ids of the tokenizer, or those that the config sets.
      used: number of ids of the tokenizer.
      size: V, rows of the embedding.

    Raises:
      ValueError: If a token of the closing tag cannot occur in a thought.
    """
    unused = tuple(range(used, size))
    whole = lambda tag: set(tag) if len(tag) == 1 else set()
    never = whole(think_open) | {pad, *bos}
    ends = {eos, separator}
    # A pad or BOS id that is also EOS or separator may occur in text: padding is masked by segment.
    documents = (never - ends) | whole(think_close)
    if shared := set(think_close) & (never | ends):
        raise ValueError(
            f"the closing tag {think_close} shares the ids {sorted(shared)} with BOS, EOS, the "
            "separator, padding or the opening tag, so thoughts could not close; set data.bos, "
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
    """Return the vocabulary of responses to problems, which may contain the closing thinking tag.

    Args:
      words: vocabulary of thoughts.
      opening: ids that start a response, in place of the opening tag.
      end: id that ends a response, in place of the closing tag.
    """
    never = tuple(token for token in words.not_in_thoughts if token != end)
    return dataclasses.replace(words, think_open=opening, think_close=(end,), not_in_thoughts=never)


@flax.struct.dataclass
class Forks:
    """The K forks of every document: their positions, and the text that follows."""

    position: jax.Array  # [B, K] int32, t, counted in tokens of the document
    target: jax.Array  # [B, K, H] int32, x_t … x_{t+H-1}; 0 after the end of the document
    present: jax.Array  # [B, K, H] bool: target tokens that the document has


@flax.struct.dataclass
class Thoughts:
    """The sampled actions of all branches; N = K · G per document."""

    actions: jax.Array  # [B, N, L] int32; sampled ids, including a sampled closing tag; then pad
    length: jax.Array  # [B, N] int32, |c|: number of actions
    closed: jax.Array  # [B, N] bool: the last C actions are the closing tag
    logprobs: jax.Array  # [B, N, L] nats, behavior policy, at the sampling temperature; then 0

    def words(self, vocabulary: Vocabulary) -> jax.Array:
        """Return the number of sampled tokens without the closing tag, [B, N] int32."""
        return self.length - len(vocabulary.think_close) * self.closed


def closes(actions: jax.Array, last: jax.Array, tag: tuple[int, ...]) -> jax.Array:
    """Return whether actions close a thought: they end with the tag, after at least one word.

    Args:
      actions: [..., L] int32.
      last: index of the last action, counted from 0.
      tag: C ids of the closing tag.

    Returns:
      [...] bool.
    """
    size = len(tag)
    if size >= actions.shape[-1]:
        return jnp.zeros(actions.shape[:-1], bool)
    end = jax.lax.dynamic_slice_in_dim(actions, last - size + 1, size, axis=-1)
    return _equal_ids(end, tag) & (last >= size)


def unclosable(
    actions: jax.Array, number: jax.Array, tag: tuple[int, ...], min_words: int
) -> jax.Array:
    """Return where the last token of the closing tag is banned: where it would close a thought that
    has fewer than `min_words` words. Sampler and trainer share this rule.

    Args:
      actions: [..., L] int32; only those before the checked ones are read.
      number: [M], indices of the actions to check, counted from 0.
      tag: C ids of the closing tag.
      min_words: `rlp.min_thought_length`, at least 1.

    Returns:
      [..., M] bool.
    """
    before = len(tag) - 1
    words = number - before  # of a thought that closes with this action
    early = (words >= 0) & (words < min_words)
    index = jnp.clip(words[:, None] + jnp.arange(before)[None, :], 0, actions.shape[-1] - 1)
    begun = _equal_ids(actions[..., index], tag[:before])
    return begun & jnp.broadcast_to(early, begun.shape)


def _equal_ids(tokens: jax.Array, ids: tuple[int, ...]) -> jax.Array:
    """Return whether the tokens [..., n] are these n ids, [...] bool."""
    expected = jnp.broadcast_to(jnp.array(ids, jnp.int32), tokens.shape)
    return jnp.all(tokens == expected, axis=-1)


def document_trunk(batch: Batch, prompt: Sequence[int] = (), bos: int = 0) -> Trunk:
    """Return the rows as trunks, with the thinking prompt, if any, between BOS and text.

    Args:
      batch: [B, T]; with a prompt, each row must be a single document.
      prompt: P token ids.
      bos: BOS tokens at the start of a row. The prompt follows them, so that a trunk starts with
        BOS as any text does.

    Returns:
      Trunk [B, P + T].
    """
    tokens, segment, position = map(jnp.asarray, (batch.tokens, batch.segment, batch.position))
    if prompt:
        rows = lambda x: jnp.broadcast_to(x[None, :], (tokens.shape[0], len(prompt)))
        before = jnp.asarray(np.array(prompt, np.int32))
        prompt_position = bos + jnp.arange(len(prompt), dtype=jnp.int32)

        def insert(x: jax.Array, new: jax.Array, shift: int = 0) -> jax.Array:
            return jnp.concatenate([x[:, :bos], rows(new), x[:, bos:] + shift], axis=1)

        tokens, segment = insert(tokens, before), insert(segment, jnp.ones_like(before))
        position = insert(position, prompt_position, len(prompt))
    return Trunk(tokens=tokens, segment=segment, position=position)


def document_tokens(trunk: Trunk, prompt: int, bos: int) -> tuple[jax.Array, jax.Array]:
    """Return tokens and segments of a trunk without the prompt, [B, T] int32 each.

    Args:
      trunk: [B, P + T], from `document_trunk`.
      prompt: P, tokens of the thinking prompt.
      bos: tokens of BOS, which precede the prompt.
    """
    without = lambda x: jnp.concatenate([x[:, :bos], x[:, bos + prompt :]], axis=1)
    return without(trunk.tokens), without(trunk.segment)


def make_forks(batch: Batch, position: jax.Array, horizon: int) -> Forks:
    """Return forks at `position` [B, K] of single-document rows, with their targets."""
    return forks_of(jnp.asarray(batch.tokens), jnp.asarray(batch.segment), position, horizon)


def forks_of(tokens: jax.Array, segment: jax.Array, position: jax.Array, horizon: int) -> Forks:
    """Return forks with their targets: the H tokens from each position on, or fewer at the end.

    Args:
      tokens, segment: of single-document rows, [B, T] int32 each.
      position: [B, K] int32.
      horizon: H.
    """
    index = position[:, :, None] + jnp.arange(horizon, dtype=jnp.int32)[None, None, :]
    present = index < (segment > 0).sum(axis=-1)[:, None, None]
    index = jnp.minimum(index, tokens.shape[1] - 1)
    target = jnp.take_along_axis(tokens[:, None, :], index, axis=2)
    return Forks(position, jnp.where(present, target, 0), present)


def empty_branches(
    fork: jax.Array, segment: jax.Array, slots: int, vocabulary: Vocabulary
) -> Branches:
    """Return branches that contain only their opening tag.

    Args:
      fork: [B, N] int32, trunk position (prompt included) of each branch's fork.
      segment: [B, N] int32, segment of the fork's document.
      slots: slots of each branch.
      vocabulary: for the opening tag and padding.
    """
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
    """Return all W slots of branches, with another target [B, N, H] int32 in the last ones."""
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
    """Return all W slots of branches with these thoughts and targets (see the module's docstring).

    Args:
      thoughts: [B, N, L].
      target: [B, N, H] int32.
      fork: [B, N] int32, trunk position (prompt included) of each branch's fork.
      segment: [B, N] int32, segment of the fork's document.
      vocabulary: for the tags and padding.
    """
    limit, horizon = thoughts.actions.shape[-1], target.shape[-1]
    opening, rest = len(vocabulary.think_open), len(vocabulary.think_close) - 1
    closed = thoughts.closed[..., None]  # [B, N, 1]
    count = thoughts.length[..., None] - closed  # actions that stay in their slots
    index = lambda n: jnp.arange(n, dtype=jnp.int32)[None, None, :]
    spread = lambda x, n: jnp.broadcast_to(x, (*count.shape[:2], n))
    tag = lambda ids: spread(jnp.array(ids, jnp.int32), len(ids))
    stays = index(limit) < count
    last = opening + count + jnp.where(closed, 0, rest)  # of the closing tag's last token
    tokens = [
        tag(vocabulary.think_open),
        jnp.where(stays, thoughts.actions, vocabulary.pad),
        tag(vocabulary.think_close),
        target[..., :-1],
    ]
    live = [
        spread(jnp.array(True), opening),
        stays,
        spread(~closed, rest),
        spread(jnp.array(True), horizon),
    ]
    offset = [
        spread(index(opening), opening),
        spread(opening + index(limit), limit),
        opening + count + index(rest),
        last + index(horizon),
    ]
    return Branches(
        tokens=jnp.concatenate(tokens, axis=-1).astype(jnp.int32),
        position=fork[..., None] + jnp.concatenate(offset, axis=-1).astype(jnp.int32),
        live=jnp.concatenate(live, axis=-1),
        segment=segment,
        fork=fork,
    )
