"""The rollout: G thoughts at every fork, decoded against one trunk cache per document.

    read_documents   the trunk once per document, and its cache
    roll_out         the opening tag but its last token at once, then one token per branch and
                     step, until every thought has closed or has L actions

Every random number belongs to (step, document, fork, thought), so a thought is the same however
documents and forks are grouped into waves, batches or devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.backend import choices
from models.cache import Cache, map_branches
from models.sharding import place, shards
from models.transformer import Transformer
from models.tree import Branches, Trunk, empty_branch_cache, extend, prefill
from rlp.data.batch import Array
from rlp.engine.branches import (
    Forks,
    Thoughts,
    Vocabulary,
    closes,
    empty_branches,
    lay_out,
    unclosable,
)
from rlp.engine.scoring import mask_logits

BLOCK = 128  # tokens whose probabilities are summed first, in two-level sampling
FORK_STREAM = 2**31 - 1  # beside the fork numbers, which are small
CROWD_ROWS = 32  # decoding goes on with no fewer in a batch: a step of fewer rows takes as long


@flax.struct.dataclass
class Documents:
    """Documents that the policy has read, ready to be thought about."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    cache: Cache
    hidden: jax.Array  # [B, P + T, D], final hidden states


@flax.struct.dataclass
class Rollout:
    """The thoughts of some forks, and the computation that they left behind."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    branches: Branches  # [B, N, W], see rlp/engine/branches.py
    branch_cache: Cache  # slots 0 … O + L - 2, those that predict actions
    thoughts: Thoughts  # [B, N, L]
    target: jax.Array  # [B, N, H] int32, the text that follows
    decoded: jax.Array  # int32, tokens decoded: branches that were run, times steps

    def without_cache(self) -> "Rollout":
        """What the update needs: the cache is large, and only the evidence reads it."""
        gone: Any = None
        return dataclasses.replace(self, branch_cache=gone)


def document_keys(key: jax.Array, step: jax.Array | int, index: Array) -> jax.Array:
    """One PRNG key per document of a step: fold_in(fold_in(root, step), document)."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(index))


def fork_keys(keys: jax.Array) -> jax.Array:
    """The key that chooses each document's forks."""
    return jax.vmap(lambda key: jax.random.fold_in(key, FORK_STREAM))(keys)


def thought_uniforms(
    keys: jax.Array, first: jax.Array | int, forks: int, group: int, length: int
) -> jax.Array:
    """One uniform number in [0, 1) per document, fork from `first` on, thought and action:
    [B, forks · G, L]."""

    def thought(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(key, (length,))

    over = jax.vmap(thought, (None, None, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group)).reshape(
        -1, forks * group, length
    )


def sample(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse-CDF sample of each row: logits [M, V], uniform [M] in [0, 1); int32 [M].

    In two levels: a block of tokens by the blocks' sums, then a token of that block. One number per
    row instead of noise per token, and sums short enough for float32. Never picks probability 0.
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    below = 1 - jnp.finfo(jnp.float32).eps  # keeps a draw strictly under the total it is held to

    def pick(weights, draw):
        mass = jnp.cumsum(weights, axis=-1)
        draw = jnp.minimum(draw, mass[:, -1] * below)[:, None]
        choice = jnp.sum(mass <= draw, axis=-1)
        before = jnp.max(jnp.where(mass <= draw, mass, 0), axis=-1)
        return choice, draw[:, 0] - before

    sums = weights.sum(axis=-1)
    block, rest = pick(sums, uniform * sums.sum(axis=-1))
    inside = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    token, _ = pick(inside, jnp.maximum(rest, 0))
    return (block * BLOCK + token).astype(jnp.int32)


def read_documents(model: Transformer, trunk: Trunk) -> Documents:
    """Prefills rows of one document each, [B, P + T], with the thinking prompt behind their bos."""
    hidden, cache = prefill(model, trunk)
    return Documents(trunk=trunk, cache=cache, hidden=hidden)


def roll_out(
    model: Transformer,
    documents: Documents,
    forks: Forks,
    uniforms: jax.Array,
    *,
    prompt_length: int,
    temperature: float,
    vocabulary: Vocabulary,
) -> Rollout:
    """Samples G thoughts at each fork.

    Args:
      model: the behaviour policy theta_old, which read the documents.
      documents: [B, P + T].
      forks: [B, K] with targets [B, K, H].
      uniforms: [B, N, L] from `thought_uniforms`; N = K · G, L the most actions of a thought.
      prompt_length: P.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.
    """
    count, limit = uniforms.shape[1:]
    group = count // forks.position.shape[1]
    fork = jnp.repeat(forks.position + prompt_length, group, axis=1)  # [B, N]
    target = jnp.repeat(forks.target, group, axis=1)  # [B, N, H]
    segment = jnp.ones_like(fork)

    decoder = _Decoder(model, documents, temperature, vocabulary)
    writing = decoder.begin(_Writing.fresh(model, documents, fork, segment, uniforms, vocabulary))
    state = (jnp.int32(0), writing, jnp.int32(0))
    widths = crowd_widths(*uniforms.shape[:2])
    for width, next_width in zip(widths, [*widths[1:], 0], strict=True):
        state = decoder.run(state, width, next_width)
    _, writing, decoded = state
    return Rollout(
        trunk=documents.trunk,
        branches=lay_out(writing.thoughts, target, fork, segment, vocabulary),
        branch_cache=writing.cache,
        thoughts=writing.thoughts,
        target=target,
        decoded=decoded,
    )


def crowd_widths(documents: int, branches: int) -> list[int]:
    """With how many branches of every document decoding goes on, one after the other."""
    widths = sorted({-(-branches // share) for share in choices().crowds}, reverse=True)
    return [width for width in widths if width == branches or documents * width >= CROWD_ROWS]


@flax.struct.dataclass
class _Writing:
    """Thoughts in the making, on N branches of every document."""

    branches: Branches  # slots 0 … O + L - 1
    cache: Cache  # slots 0 … O + L - 2
    thoughts: Thoughts  # [B, N, L]
    uniforms: jax.Array  # [B, N, L]
    open: jax.Array  # [B, N] bool, not closed yet

    @classmethod
    def fresh(
        cls,
        model: Transformer,
        documents: Documents,
        fork: jax.Array,
        segment: jax.Array,
        uniforms: jax.Array,
        vocabulary: Vocabulary,
    ) -> "_Writing":
        """Branches [B, N] that hold their opening tag and nothing else."""
        zeros = lambda dtype: jnp.zeros(fork.shape, dtype)
        slots = len(vocabulary.think_open) + uniforms.shape[-1]
        branches = empty_branches(fork, segment, slots, vocabulary)
        return cls(
            branches=branches,
            cache=empty_branch_cache(model, documents.trunk, documents.cache, branches, slots - 1),
            thoughts=Thoughts(
                actions=jnp.full(uniforms.shape, vocabulary.pad, jnp.int32),
                length=zeros(jnp.int32),
                closed=zeros(bool),
                logprobs=jnp.zeros(uniforms.shape, jnp.float32),
            ),
            uniforms=uniforms,
            open=~zeros(bool),
        )

    def add(
        self,
        number: jax.Array,
        action: jax.Array,
        logprob: jax.Array,
        cache: Cache,
        vocabulary: Vocabulary,
    ) -> "_Writing":
        """With action `number`, counted from 0, [B, N] on every open thought."""
        t, b = self.thoughts, self.branches
        put = lambda x, new, at: jax.lax.dynamic_update_index_in_dim(x, new, at, axis=2)
        action = jnp.where(self.open, action, vocabulary.pad)
        actions = put(t.actions, action, number)
        closed = self.open & closes(actions, number, vocabulary.think_close)
        still_open = self.open & ~closed
        thoughts = Thoughts(
            actions=actions,
            length=t.length + self.open,
            closed=t.closed | closed,
            logprobs=put(t.logprobs, jnp.where(self.open, logprob, 0.0), number),
        )
        slot = len(vocabulary.think_open) + number
        branches = dataclasses.replace(
            b,
            tokens=put(b.tokens, jnp.where(still_open, action, vocabulary.pad), slot),
            live=put(b.live, still_open, slot),
        )
        return dataclasses.replace(
            self, branches=branches, cache=cache, thoughts=thoughts, open=still_open
        )

    def pick(self, index: jax.Array) -> "_Writing":
        """The branches `index` [B, M] of every document."""
        return self._map(lambda x, axes: _pick(x, index, axes))

    def put_back(self, index: jax.Array, crowd: "_Writing") -> "_Writing":
        """With the branches `index` [B, M] as they are in `crowd`."""
        return self._map(lambda x, axes, new: _put(x, index, new, axes), crowd)

    def _map(self, change: Callable, *others: "_Writing") -> "_Writing":
        """`change(array, axes of documents and of branches, …)` on every array."""
        bare = lambda writing: dataclasses.replace(writing, cache=None)
        rest = jax.tree.map(lambda x, *y: change(x, (0, 1), *y), bare(self), *map(bare, others))
        cache = map_branches(change, self.cache, *(other.cache for other in others))
        return dataclasses.replace(rest, cache=cache)


_State = tuple[jax.Array, _Writing, jax.Array]  # next action, thoughts, tokens decoded so far


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """Samples actions one by one."""

    model: Transformer
    documents: Documents
    temperature: float
    vocabulary: Vocabulary

    def begin(self, writing: _Writing) -> _Writing:
        """With the opening tag in the cache, all but its last token, which predicts an action."""
        known = len(self.vocabulary.think_open) - 1
        if not known:
            return writing
        return dataclasses.replace(writing, cache=self._extend(writing, 0, known)[1])

    def run(self, state: _State, width: int, next_width: int) -> _State:
        """Goes on with `width` branches of every document, all open ones among them, until no
        document has more than `next_width` of those or L actions are taken."""
        number, writing, decoded = state
        if width == writing.open.shape[1]:
            return self._loop(state, next_width)
        order = jnp.argsort(~writing.open, axis=1, stable=True)[:, :width]  # open ones first
        number, crowd, decoded = self._loop((number, writing.pick(order), decoded), next_width)
        return number, writing.put_back(order, crowd), decoded

    def _loop(self, state: _State, next_width: int) -> _State:
        def running(state: _State) -> jax.Array:
            number, writing, _ = state
            limit = writing.uniforms.shape[-1]
            return (number < limit) & (writing.open.sum(axis=1).max() > next_width)

        def step(state: _State) -> _State:
            number, writing, decoded = state
            slot = len(self.vocabulary.think_open) - 1 + number
            hidden, cache = self._extend(writing, slot, 1)
            action, logprob = self._act(hidden, writing, number)
            writing = writing.add(number, action, logprob, cache, self.vocabulary)
            return number + 1, writing, decoded + writing.open.size

        return jax.lax.while_loop(running, step, state)

    def _extend(
        self, writing: _Writing, start: jax.Array | int, count: int
    ) -> tuple[jax.Array, Any]:
        """Hidden states [B, N, count, D] of slots from `start` on, and the cache with them."""
        documents = self.documents
        return extend(
            self.model,
            documents.trunk,
            documents.cache,
            writing.branches,
            writing.cache,
            start,
            count,
        )

    def _act(
        self, hidden: jax.Array, writing: _Writing, number: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Actions and their log-probabilities, [B, N]."""
        shape, close = writing.open.shape, self.vocabulary.think_close
        logits = self.model.logits(hidden.reshape(-1, hidden.shape[-1]))
        uniform = jax.lax.dynamic_index_in_dim(writing.uniforms, number, axis=2, keepdims=False)
        shut = unclosable(writing.thoughts.actions, number[None], close)
        # A draw sums over the whole vocabulary, in blocks that `tensor` would cut: its devices take
        # a share of the branches each, where they can. All that is said, lest it spread.
        spread = "draws" if len(logits) % shards("draws") == 0 else "rows"
        each = lambda x: place(place(x.reshape(-1), "rows"), spread)
        logits = mask_logits(
            place(place(logits, "rows", "vocab"), spread),
            self.vocabulary.not_in_thoughts,
            self.temperature or 1.0,
            close[-1],
            each(shut),
        )
        if self.temperature:
            action = sample(logits, each(uniform))
        else:
            action = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=-1)
        action, logprob = place(action, "rows"), place(logprob[:, 0], "rows")
        return action.reshape(shape), logprob.reshape(shape)


def _pick(x: jax.Array, index: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The branches `index` [B, M] of every document; `axes` are those of documents and branches."""
    picked = jax.vmap(lambda row, i: row[i])(jnp.moveaxis(x, axes, (0, 1)), index)
    return jnp.moveaxis(picked, (0, 1), axes)


def _put(x: jax.Array, index: jax.Array, new: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """x with the branches `index` [B, M] of every document from `new`."""
    x, new = (jnp.moveaxis(y, axes, (0, 1)) for y in (x, new))
    return jnp.moveaxis(jax.vmap(lambda row, i, y: row.at[i].set(y))(x, index, new), (0, 1), axes)
