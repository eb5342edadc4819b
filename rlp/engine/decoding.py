"""Decoding: one token per step on all branches of all documents at once.

As thoughts close, decoding continues with fewer branches of every document.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.backend import choices
from models.cache import Cache, map_rows, stacked, unstacked
from models.sharding import constrain, shards
from models.transformer import Transformer, decodes_unrolled, unrolled
from models.tree import Branches, Trunk, empty_branch_cache, extend
from rlp.engine.branches import Thoughts, Vocabulary, closes, empty_branches, unclosable
from rlp.engine.sampling import Sampler, likeliest, sample
from rlp.engine.scoring import mask_logits

MIN_ROWS = 32  # of a decoding step: with fewer rows, a step is not faster


def decode(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    fork: jax.Array,
    segment: jax.Array,
    uniforms: jax.Array,
    temperature: float,
    vocabulary: Vocabulary,
    min_words: int,
    limit: jax.Array | int,
) -> tuple[Thoughts, Cache, jax.Array]:
    """Sample a thought on every branch, until each has closed or has `limit` actions.

    Args:
      model: the behavior policy theta_old.
      trunk, trunk_cache: the documents [B, P + T], prefilled by `model`.
      fork: [B, N] int32, trunk position of each branch's fork.
      segment: [B, N] int32, segment of the fork's document.
      uniforms: [B, N, L] in [0, 1), one number per action.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.
      min_words: minimum number of actions before the closing tag.
      limit: maximum number of actions, at most L.

    Returns:
      The thoughts [B, N, L]; the cache of slots 0 … O + L - 2 of the branches; and the number of
      decoded tokens, int32: the rows of all decoding steps, also of closed thoughts.
    """
    scanned = not isinstance(model.blocks, list)
    model, trunk_cache = for_decoding(model, trunk_cache)
    decoder = _Decoder(model, trunk, trunk_cache, temperature, vocabulary, min_words, limit)
    slots = len(vocabulary.think_open) + uniforms.shape[-1]
    branches = empty_branches(fork, segment, slots, vocabulary)
    cache = empty_branch_cache(model, trunk, trunk_cache, branches, slots - 1)
    partial = decoder.begin(_PartialThoughts.fresh(branches, cache, uniforms, vocabulary))
    state = (jnp.int32(0), partial, jnp.int32(0))
    widths = decode_widths(*uniforms.shape[:2])
    for width, next_width in zip(widths, [*widths[1:], 0], strict=True):
        state = decoder.run(state, width, next_width)
    _, partial, decoded = state
    cache = partial.cache
    if scanned and isinstance(model.blocks, list):
        cache = stacked(cache)
    return partial.thoughts, cache, decoded


def for_decoding(model: Transformer, trunk_cache: Cache) -> tuple[Transformer, Cache]:
    """Return a network and the cache of its trunk with unrolled layers, if that suits the backend
    (`Choices.unrolled_decoding`). They are copied, so call it outside of the decoding loop."""
    if not decodes_unrolled(model.config):
        return model, trunk_cache
    return unrolled(model), unstacked(trunk_cache)


def decode_widths(documents: int, branches: int) -> list[int]:
    """Return the numbers of branches per document that decoding runs with, in falling order."""
    widths = sorted(
        {-(-branches // divisor) for divisor in choices().decode_divisors}, reverse=True
    )
    return [width for width in widths if width == branches or documents * width >= MIN_ROWS]


@flax.struct.dataclass
class _PartialThoughts:
    """Thoughts during decoding, on N branches of every document."""

    branches: Branches  # slots 0 … O + L - 1
    cache: Cache  # slots 0 … O + L - 2
    thoughts: Thoughts  # [B, N, L]
    uniforms: jax.Array  # [B, N, L]
    open: jax.Array  # [B, N] bool: not closed yet

    @classmethod
    def fresh(
        cls, branches: Branches, cache: Cache, uniforms: jax.Array, vocabulary: Vocabulary
    ) -> "_PartialThoughts":
        """Return thoughts without actions, on branches [B, N] that contain only the opening tag."""
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
        """Add the action with index `number`, counted from 0, to every open thought.

        Args:
          number: int32 scalar.
          action: [B, N] int32.
          logprob: [B, N] nats.
          cache: of the branches, with the slot that predicted the action.
          vocabulary: tags and padding.
        """
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

    def take(self, index: jax.Array) -> "_PartialThoughts":
        """Take the branches `index` [B, M] of every document."""
        return self._map(lambda x, axes: _take(x, index, axes))

    def put(self, index: jax.Array, some: "_PartialThoughts") -> "_PartialThoughts":
        """Replace the branches `index` [B, M] of every document by those of `some`."""
        return self._map(lambda x, axes, new: _put(x, index, new, axes), some)

    def _map(self, change: Callable, *others: "_PartialThoughts") -> "_PartialThoughts":
        """Apply `change(array, (axis of documents, axis of branches), *others)` to every array."""
        bare = lambda partial: dataclasses.replace(partial, cache=None)
        rest = jax.tree.map(lambda x, *y: change(x, (0, 1), *y), bare(self), *map(bare, others))
        cache = map_rows(change, self.cache, *(other.cache for other in others))
        return dataclasses.replace(rest, cache=cache)


# Index of the next action, thoughts, tokens decoded so far.
_State = tuple[jax.Array, _PartialThoughts, jax.Array]


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """Samples one action per step on a number of branches per document."""

    model: Transformer
    trunk: Trunk
    trunk_cache: Cache
    temperature: float
    vocabulary: Vocabulary
    min_words: int
    limit: jax.Array | int

    def begin(self, partial: _PartialThoughts) -> _PartialThoughts:
        """Add the opening tag to the cache, except its last token, which predicts an action."""
        count = len(self.vocabulary.think_open) - 1
        if not count:
            return partial
        return dataclasses.replace(partial, cache=self._extend(partial, 0, count)[1])

    def run(self, state: _State, width: int, next_width: int) -> _State:
        """Decode `width` branches of every document, which include all open ones, until no document
        has more than `next_width` open ones or `limit` actions were taken."""
        number, partial, decoded = state
        if width == partial.open.shape[1]:
            return self._loop(state, next_width)
        order = jnp.argsort(~partial.open, axis=1, stable=True)[:, :width]  # open ones first
        number, some, decoded = self._loop((number, partial.take(order), decoded), next_width)
        return number, partial.put(order, some), decoded

    def _loop(self, state: _State, next_width: int) -> _State:
        def running(state: _State) -> jax.Array:
            number, partial, _ = state
            return (number < self.limit) & (partial.open.sum(axis=1).max() > next_width)

        def step(state: _State) -> _State:
            number, partial, decoded = state
            slot = len(self.vocabulary.think_open) - 1 + number
            hidden, cache = self._extend(partial, slot, 1)
            action, logprob = self._act(hidden, partial, number)
            partial = partial.add(number, action, logprob, cache, self.vocabulary)
            return number + 1, partial, decoded + partial.open.size

        return decoding_loop(running, step, state)

    def _extend(
        self, partial: _PartialThoughts, start: jax.Array | int, count: int
    ) -> tuple[jax.Array, Cache]:
        """Return hidden states [B, N, count, D] of slots from `start` on, and the new cache."""
        trunk, cache = self.trunk, self.trunk_cache
        return extend(self.model, trunk, cache, partial.branches, partial.cache, start, count)

    def _act(
        self, hidden: jax.Array, partial: _PartialThoughts, number: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Sample an action per branch; return actions [B, N] and log-probabilities [B, N], nats."""
        close = self.vocabulary.think_close
        return next_tokens(
            self.model,
            hidden[:, :, 0],
            jax.lax.dynamic_index_in_dim(partial.uniforms, number, axis=2, keepdims=False),
            self.vocabulary.not_in_thoughts,
            self.temperature,
            close[-1],
            unclosable(partial.thoughts.actions, number[None], close, self.min_words)[:, :, 0],
        )


def next_tokens(
    model: Transformer,
    hidden: jax.Array,
    uniform: jax.Array,
    banned: Sequence[int],
    sampler: float | Sampler,
    close: int | None = None,
    unclosable: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Choose a token for every branch; return tokens [B, N] and log-probabilities [B, N], nats.

    Args:
      model: computes logits from hidden states.
      hidden: final hidden states [B, N, D] that predict the tokens.
      uniform: [B, N] in [0, 1); ignored if the likeliest tokens are taken.
      banned: ids that are not chosen.
      sampler: a temperature for all branches (0 takes the likeliest token), or the settings of
        each, with arrays [B, N].
      close, unclosable: as in `mask_logits`, with `unclosable` [B, N].
    """
    logits = model.logits(hidden.reshape(-1, hidden.shape[-1]))
    # Sampling sums over blocks of the vocabulary, which the axis `tensor` would cut. If their
    # number divides, its devices take a share of the rows instead. All placements are explicit,
    # so that the compiler does not propagate this one to other arrays.
    layout = "draws" if len(logits) % shards("draws") == 0 else "rows"
    by_row = lambda x: constrain(constrain(x.reshape(-1), "rows"), layout)
    temperature: float | jax.Array
    choose: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    if isinstance(sampler, Sampler):
        of_rows: Sampler = jax.tree.map(by_row, sampler)
        temperature, choose = of_rows.divisor, of_rows.choose
    else:
        temperature = sampler or 1.0
        choose = sample if sampler else lambda logits, _: likeliest(logits)
    logits = mask_logits(
        constrain(constrain(logits, "rows", "vocab"), layout),
        banned,
        temperature,
        close,
        None if unclosable is None else by_row(unclosable),
    )
    chosen = (constrain(x, "rows") for x in choose(logits, by_row(uniform)))
    tokens, logprobs = (x.reshape(uniform.shape) for x in chosen)
    return tokens, logprobs


def decoding_loop(running: Callable, step: Callable, state: Any) -> Any:
    """Run `jax.lax.while_loop`, and carry the caches without axes of size 1 if that suits the
    backend (`Choices.unit_axes`).

    Args:
      running, step: as in `while_loop`.
      state: (number of the step, a dataclass with a branch `cache`, anything).
    """
    if choices().unit_axes:
        return jax.lax.while_loop(running, step, state)
    shapes = jax.tree.map(jnp.shape, state[1].cache)

    def on_cache(change: Callable, state: Any) -> Any:
        number, partial, rest = state
        return number, dataclasses.replace(partial, cache=change(partial.cache)), rest

    bare = functools.partial(on_cache, lambda cache: jax.tree.map(jnp.squeeze, cache))
    whole = functools.partial(on_cache, lambda cache: jax.tree.map(jnp.reshape, cache, shapes))
    run = lambda state: bare(step(whole(state)))
    return whole(jax.lax.while_loop(running, run, bare(state)))


def _take(x: jax.Array, index: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Take the branches `index` [B, M]; `axes` are those of documents and branches in x."""
    taken = jax.vmap(lambda row, i: row[i])(jnp.moveaxis(x, axes, (0, 1)), index)
    return jnp.moveaxis(taken, (0, 1), axes)


def _put(x: jax.Array, index: jax.Array, new: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Replace the branches `index` [B, M] of x by those of `new`; `axes` as in `_take`."""
    x, new = (jnp.moveaxis(y, axes, (0, 1)) for y in (x, new))
    return jnp.moveaxis(jax.vmap(lambda row, i, y: row.at[i].set(y))(x, index, new), (0, 1), axes)
