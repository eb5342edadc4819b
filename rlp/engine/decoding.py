"""Decoding: thoughts grow by one token per step, on all branches of all documents at once.

As thoughts close, decoding continues with fewer branches of every document.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from models.backend import choices
from models.cache import Cache, map_branches
from models.sharding import constrain, shards
from models.transformer import Transformer
from models.tree import Branches, Trunk, empty_branch_cache, extend
from rlp.engine.branches import Thoughts, Vocabulary, closes, empty_branches, unclosable
from rlp.engine.sampling import sample
from rlp.engine.scoring import mask_logits

MIN_ROWS = 32  # of a decoding step; one of fewer rows takes as long


def decode(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    fork: jax.Array,
    segment: jax.Array,
    uniforms: jax.Array,
    temperature: float,
    vocabulary: Vocabulary,
) -> tuple[Thoughts, Cache, jax.Array]:
    """Samples a thought on every branch, until each has closed or has L actions.

    Args:
      model: the behaviour policy.
      trunk, trunk_cache: the documents, prefilled by `model`.
      fork: [B, N], trunk position where each branch leaves.
      segment: [B, N], document of the row.
      uniforms: [B, N, L] numbers in [0, 1), one for every action.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.

    Returns:
      The thoughts; the cache of the branches' slots 0 … O + L - 2; and the number of tokens that
      were decoded, int32: branches that were run, times steps.
    """
    decoder = _Decoder(model, trunk, trunk_cache, temperature, vocabulary)
    slots = len(vocabulary.think_open) + uniforms.shape[-1]
    branches = empty_branches(fork, segment, slots, vocabulary)
    cache = empty_branch_cache(model, trunk, trunk_cache, branches, slots - 1)
    partial = decoder.begin(_PartialThoughts.fresh(branches, cache, uniforms, vocabulary))
    state = (jnp.int32(0), partial, jnp.int32(0))
    widths = decode_widths(*uniforms.shape[:2])
    for width, next_width in zip(widths, [*widths[1:], 0], strict=True):
        state = decoder.run(state, width, next_width)
    _, partial, decoded = state
    return partial.thoughts, partial.cache, decoded


def decode_widths(documents: int, branches: int) -> list[int]:
    """How many branches of every document decoding runs with, in order, as thoughts close."""
    widths = sorted(
        {-(-branches // divisor) for divisor in choices().decode_divisors}, reverse=True
    )
    return [width for width in widths if width == branches or documents * width >= MIN_ROWS]


@flax.struct.dataclass
class _PartialThoughts:
    """Thoughts that are being decoded, on N branches of every document."""

    branches: Branches  # slots 0 … O + L - 1
    cache: Cache  # slots 0 … O + L - 2
    thoughts: Thoughts  # [B, N, L]
    uniforms: jax.Array  # [B, N, L]
    open: jax.Array  # [B, N] bool, not closed yet

    @classmethod
    def fresh(
        cls, branches: Branches, cache: Cache, uniforms: jax.Array, vocabulary: Vocabulary
    ) -> "_PartialThoughts":
        """Branches [B, N] that hold their opening tag and nothing else."""
        zeros = lambda dtype: jnp.zeros(branches.fork.shape, dtype)
        return cls(
            branches=branches,
            cache=cache,
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
    ) -> "_PartialThoughts":
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

    def pick(self, index: jax.Array) -> "_PartialThoughts":
        """The branches `index` [B, M] of every document."""
        return self._map(lambda x, axes: _pick(x, index, axes))

    def put_back(self, index: jax.Array, some: "_PartialThoughts") -> "_PartialThoughts":
        """With the branches `index` [B, M] as they are in `some`."""
        return self._map(lambda x, axes, new: _put(x, index, new, axes), some)

    def _map(self, change: Callable, *others: "_PartialThoughts") -> "_PartialThoughts":
        """`change(array, axes of documents and of branches, …)` on every array."""
        bare = lambda partial: dataclasses.replace(partial, cache=None)
        rest = jax.tree.map(lambda x, *y: change(x, (0, 1), *y), bare(self), *map(bare, others))
        cache = map_branches(change, self.cache, *(other.cache for other in others))
        return dataclasses.replace(rest, cache=cache)


_State = tuple[
    jax.Array, _PartialThoughts, jax.Array
]  # next action, thoughts, tokens decoded so far


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """Samples actions one by one."""

    model: Transformer
    trunk: Trunk
    trunk_cache: Cache
    temperature: float
    vocabulary: Vocabulary

    def begin(self, partial: _PartialThoughts) -> _PartialThoughts:
        """With the opening tag in the cache, all but its last token, which predicts an action."""
        known = len(self.vocabulary.think_open) - 1
        if not known:
            return partial
        return dataclasses.replace(partial, cache=self._extend(partial, 0, known)[1])

    def run(self, state: _State, width: int, next_width: int) -> _State:
        """Continues with `width` branches of every document, all open ones among them, until no
        document has more than `next_width` of those or L actions are taken."""
        number, partial, decoded = state
        if width == partial.open.shape[1]:
            return self._loop(state, next_width)
        order = jnp.argsort(~partial.open, axis=1, stable=True)[:, :width]  # open ones first
        number, some, decoded = self._loop((number, partial.pick(order), decoded), next_width)
        return number, partial.put_back(order, some), decoded

    def _loop(self, state: _State, next_width: int) -> _State:
        def running(state: _State) -> jax.Array:
            number, partial, _ = state
            limit = partial.uniforms.shape[-1]
            return (number < limit) & (partial.open.sum(axis=1).max() > next_width)

        def step(state: _State) -> _State:
            number, partial, decoded = state
            slot = len(self.vocabulary.think_open) - 1 + number
            hidden, cache = self._extend(partial, slot, 1)
            action, logprob = self._act(hidden, partial, number)
            partial = partial.add(number, action, logprob, cache, self.vocabulary)
            return number + 1, partial, decoded + partial.open.size

        return jax.lax.while_loop(running, step, state)

    def _extend(
        self, partial: _PartialThoughts, start: jax.Array | int, count: int
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [B, N, count, D] of slots from `start` on, and the cache with them."""
        trunk, cache = self.trunk, self.trunk_cache
        return extend(self.model, trunk, cache, partial.branches, partial.cache, start, count)

    def _act(
        self, hidden: jax.Array, partial: _PartialThoughts, number: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Actions and their log-probabilities, [B, N]."""
        shape, close = partial.open.shape, self.vocabulary.think_close
        logits = self.model.logits(hidden.reshape(-1, hidden.shape[-1]))
        uniform = jax.lax.dynamic_index_in_dim(partial.uniforms, number, axis=2, keepdims=False)
        shut = unclosable(partial.thoughts.actions, number[None], close)
        # A draw sums over the whole vocabulary, in blocks that `tensor` would cut: its devices take
        # a share of the branches each, where they can. All that is said, lest it spread.
        spread = "draws" if len(logits) % shards("draws") == 0 else "rows"
        each = lambda x: constrain(constrain(x.reshape(-1), "rows"), spread)
        logits = mask_logits(
            constrain(constrain(logits, "rows", "vocab"), spread),
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
        action, logprob = constrain(action, "rows"), constrain(logprob[:, 0], "rows")
        return action.reshape(shape), logprob.reshape(shape)


def _pick(x: jax.Array, index: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The branches `index` [B, M] of every document; `axes` are those of documents and branches."""
    picked = jax.vmap(lambda row, i: row[i])(jnp.moveaxis(x, axes, (0, 1)), index)
    return jnp.moveaxis(picked, (0, 1), axes)


def _put(x: jax.Array, index: jax.Array, new: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """x with the branches `index` [B, M] of every document from `new`."""
    x, new = (jnp.moveaxis(y, axes, (0, 1)) for y in (x, new))
    return jnp.moveaxis(jax.vmap(lambda row, i, y: row.at[i].set(y))(x, index, new), (0, 1), axes)
