"""Recurrences over documents in rows, and over slots of branches: Mamba-2 and the gated delta rule.

Each head keeps a state [P, S] of the text so far. A token lets it decay, adds its value times its
key to it, and reads it with its query:

    state = exp(decay) · state + value ⊗ key            y = state · query

In Mamba-2 (arXiv 2405.21060) the value is dt · x, the decay dt · rate, and key and query are called
b and c (`mamba_tokens`). In the gated delta rule (arXiv 2412.06464) a token replaces a share of the
value that the state has for its key, its strength (`delta_tokens`): instead of its value it adds

    strength · (value - exp(decay) · state · key)

`recur` computes this for many tokens at once, `step` for one. Sequences are [B, N, T, …], N in each
row: the branches of a row, or one, the row itself. States are [B, H, N, P, S], as in the caches of
layers.

A row may contain several documents (`segment`), between which no state passes, and where branches
will leave, the state is wanted (`Places`). In a branch some slots are dead: their value, decay and
strength are 0, which leaves the state as it is. The gradient of one document with respect to
another, and with respect to dead slots, is exactly zero. No sum in a gradient depends on the order
of a scatter, so two runs on a GPU have the same bits.

All numbers but the inputs are float32 (or wider, if the inputs are). Sums of logarithms of decays,
selections (products with ones and zeros), and what is subtracted from a value have full precision;
other products have that of the backend's default.

Axis letters: H heads of P values each, S size of a key, G groups of heads that share keys and
queries, R heads in each group.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.triangular import HIGHEST, unit_inverse

NEVER = -jnp.inf  # the logarithm of a decay to nothing


@flax.struct.dataclass
class Tokens:
    """What tokens do with the states. Arrays are [B, N, T, …], or [B, N, …] of one token each."""

    value: jax.Array  # [..., H, P]
    key: jax.Array  # [..., G, S]
    query: jax.Array  # [..., G, S]
    decay: jax.Array  # [..., H], the logarithm: at most 0
    strength: jax.Array | None = None  # [..., H], 0 … 1, of the delta rule; None for Mamba-2

    def wide(self) -> "Tokens":
        """Return them in float32 (or wider)."""
        dtype = jnp.promote_types(self.value.dtype, jnp.float32)
        return jax.tree.map(lambda x: x.astype(dtype), self)


def mamba_tokens(
    x: jax.Array, dt: jax.Array, rate: jax.Array, b: jax.Array, c: jax.Array
) -> Tokens:
    """Return the tokens of Mamba-2.

    Args:
      x: inputs, [..., H, P].
      dt: steps, [..., H], float32; 0 for dead slots.
      rate: rates of decay, [H], negative.
      b: [..., G, S].
      c: [..., G, S].
    """
    return Tokens(x * dt[..., None], b, c, dt * last_axes(rate, dt))


def delta_tokens(
    v: jax.Array, k: jax.Array, q: jax.Array, decay: jax.Array, strength: jax.Array
) -> Tokens:
    """Return the tokens of the gated delta rule, which normalizes keys and queries.

    Args:
      v: [..., H, P].
      k: [..., G, S].
      q: [..., G, S].
      decay: logarithms of decays, [..., H], float32; 0 for dead slots.
      strength: [..., H], float32; 0 for dead slots.
    """
    size = k.shape[-1]
    return Tokens(v, _unit(k), _unit(q) * size**-0.5, decay, strength)


def _unit(x: jax.Array) -> jax.Array:
    """Return x divided by its length over the last axis, in float32 (or wider)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)


@flax.struct.dataclass
class Places:
    """Places where branches leave sequences: a branch sees the tokens of its document before."""

    place: jax.Array  # [B, N, K] int32, 0 … T: index in the sequence of the first token not seen
    segment: jax.Array  # [B, N, K] int32, number of the document


def recur(
    tokens: Tokens,
    segment: jax.Array,
    *,
    chunk: int,
    start: jax.Array | None = None,
    places: Places | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over sequences, in chunks.

    Within a chunk, all pairs of tokens are computed at once; from one to the next, the state is
    handed on. The backward pass computes the inside of a chunk again.

    Args:
      tokens: [B, N, T, …].
      segment: [B, N, T] int32; a state passes only between tokens of the same segment.
      chunk: maximum number of tokens in a chunk; it changes no result but for rounding.
      start: states before the first token, of its segment, [B, H, N, P, S]; None for zeros.
      places: where the states are wanted.

    Returns:
      Outputs [B, N, T, H, P] in float32 (or wider), and the states: without `places` those after
      the last token, [B, H, N, P, S], else those at the places, [B, H, N, K, P, S].
    """
    tokens = tokens.wide()
    (batch, number, length, heads, width), dtype = tokens.value.shape, tokens.value.dtype
    groups, size = tokens.key.shape[-2:]
    chunk = chunks_of(length, chunk)[1]
    # Padding does nothing, like a dead slot, and continues the last document.
    parts = jax.tree.map(lambda y: _chunks(y, chunk, "constant"), _grouped(tokens, groups))
    of_chunks = _chunks(segment, chunk, "edge")
    if start is None:
        start = jnp.zeros((batch, heads, number, width, size), dtype)
    state = start.astype(dtype).reshape(batch, groups, -1, *start.shape[2:])
    corrected = tokens.strength is not None

    def run(carry: Any, part: Any) -> tuple[Any, Any]:
        after, y, added = _chunk(carry, *part)
        return after, (y, None if places is None else (carry, added if corrected else None))

    run = jax.checkpoint(run, prevent_cse=False)
    final, (y, at_chunks) = jax.lax.scan(run, (state, segment[..., 0]), (parts, of_chunks))
    y = jnp.moveaxis(y, 0, 2).reshape(batch, number, -1, heads, width)[:, :, :length]
    if places is None:
        return y, final[0].reshape(start.shape)
    before, added = at_chunks
    values = parts.value if added is None else added
    states = states_at(before, final, values, parts.key, parts.decay, of_chunks, places)
    return y, states.reshape(batch, heads, number, -1, width, size)


def chunks_of(length: int, limit: int) -> tuple[int, int]:
    """Return the number of chunks of sequences of `length` tokens, and the tokens of each: the
    fewest chunks of at most `limit` tokens, and then the shortest."""
    count = -(-length // limit)
    return count, -(-length // count)


def last_axes(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x with leading axes of size 1, for operations with an array of higher rank."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def _grouped(tokens: Tokens, groups: int) -> Tokens:
    """Split the heads [..., H, …] of tokens [B, N, T, …] into [..., G, R, …]."""
    split = lambda y: y.reshape(*y.shape[:3], groups, y.shape[3] // groups, *y.shape[4:])
    value, decay, strength = jax.tree.map(split, (tokens.value, tokens.decay, tokens.strength))
    return dataclasses.replace(tokens, value=value, decay=decay, strength=strength)


def _chunks(x: jax.Array, chunk: int, mode: str) -> jax.Array:
    """Pad and split [B, N, T, …] to [chunks, B, N, chunk, …]."""
    more = [(0, 0)] * x.ndim
    more[2] = (0, -x.shape[2] % chunk)
    x = jnp.pad(x, more, mode=mode)
    return jnp.moveaxis(x.reshape(*x.shape[:2], -1, chunk, *x.shape[3:]), 2, 0)


def _chunk(
    before: tuple[jax.Array, jax.Array], tokens: Tokens, segment: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """Run one chunk of Q tokens. Heads are [G, R].

    Args:
      before: the states [B, G, R, N, P, S] before the chunk, and their segments [B, N].
      tokens: [B, N, Q, …].
      segment: [B, N, Q].

    Returns:
      The states after the chunk with their segments, the outputs [B, N, Q, G, R, P], and what the
      tokens add to the states, times their keys, in the same shape.
    """
    (state, of), last = before, segment[..., -1]
    key, query, decay = tokens.key, tokens.query, tokens.decay
    near = segment[..., :, None] == segment[..., None, :]  # [B, N, Q, Q]
    near &= last_axes(jnp.tri(segment.shape[-1], dtype=bool), near)
    # The decay since the segment or the chunk began. As a product with ones and zeros it has no
    # gradient in other documents; that of a cumulative sum would be their rounding errors.
    since = jnp.einsum("bnls,bnsgr->bgrnl", near.astype(decay.dtype), decay, precision=HIGHEST)
    between = _decays(since[..., :, None] - since[..., None, :], near)
    own = segment == of[..., None]
    into = _tokens_first(_decays(since, own))
    added = _added(tokens, between, into, state)
    scores = jnp.einsum("bnlgd,bnsgd->bgnls", query, key)[:, :, None] * between
    y = jnp.einsum("bgrnls,bnsgrp->bnlgrp", scores, added)
    y += into * jnp.einsum("bnlgd,bgrnpd->bnlgrp", query, state)
    to_end = _tokens_first(_decays(since[..., -1:] - since, segment == last[..., None]))
    through = _decays(since[..., -1], own.all(axis=-1))[..., None, None]
    state = through * state + jnp.einsum("bnsgrp,bnsgd->bgrnpd", to_end * added, key)
    return (state, last), y, added


def _decays(logarithm: jax.Array, where: jax.Array) -> jax.Array:
    """Return exp of [B, G, R, N, …] where [B, N, …] holds, else 0."""
    return jnp.exp(jnp.where(where[:, None, None], logarithm, NEVER))


def _tokens_first(x: jax.Array) -> jax.Array:
    """Return [B, G, R, N, Q] as [B, N, Q, G, R, 1]."""
    return x.transpose(0, 3, 4, 1, 2)[..., None]


def _added(tokens: Tokens, between: jax.Array, into: jax.Array, state: jax.Array) -> jax.Array:
    """Return what the tokens of a chunk add to the states, times their keys.

    By the delta rule that is u = strength · (value - what the state has for the key), and the state
    of a token contains what those before it added. So u solves a triangular system.

    Args:
      tokens: [B, N, Q, …], heads [G, R].
      between: decays from one token to another, [B, G, R, N, Q, Q].
      into: decays since the chunk began, [B, N, Q, G, R, 1].
      state: before the chunk, [B, G, R, N, P, S].

    Returns:
      [B, N, Q, G, R, P].
    """
    if tokens.strength is None:
        return tokens.value
    key, strength = tokens.key, tokens.strength[..., None]
    held = into * jnp.einsum("bnlgd,bgrnpd->bnlgrp", key, state, precision=HIGHEST)
    alike = jnp.einsum("bnlgd,bnsgd->bgnls", key, key, precision=HIGHEST)[:, :, None]
    earlier = jnp.tri(between.shape[-1], k=-1, dtype=bool)
    system = jnp.where(last_axes(earlier, between), alike * between, 0)
    system *= jnp.moveaxis(strength, (3, 4), (1, 2))
    wanted = strength * (tokens.value - held)
    inverse = unit_inverse(system)
    return jnp.einsum("bgrnls,bnsgrp->bnlgrp", inverse, wanted, precision=HIGHEST)


def states_at(
    before: tuple[jax.Array, jax.Array],
    final: tuple[jax.Array, jax.Array],
    values: jax.Array,
    keys: jax.Array,
    decay: jax.Array,
    segment: jax.Array,
    places: Places,
) -> jax.Array:
    """Return the states at places: that before the chunk of each, and the chunk's tokens up to it.

    Args:
      before: states [C, B, G, R, N, P, S] before each of C chunks, and their segments [C, B, N].
      final: states [B, G, R, N, P, S] after the last one, and their segments [B, N].
      values: [C, B, N, Q, G, R, P]; a token adds value ⊗ key to the state.
      keys: [C, B, N, Q, G, S].
      decay: logarithm of the decay at each token, [C, B, N, Q, G, R].
      segment: [C, B, N, Q].
      places: K places of each sequence.

    Returns:
      [B, G, R, N, K, P, S].
    """
    count, chunk = segment.shape[0], segment.shape[-1]
    number, rest = places.place // chunk, places.place % chunk  # [B, N, K]
    # A place after the last whole chunk is at the start of one more, which has no tokens.
    chosen = jax.nn.one_hot(number, count + 1, dtype=values.dtype)
    select = lambda how, y: jnp.einsum(how, chosen[..., :count], y, precision=HIGHEST)
    state = select("bnkc,cbgrnpd->bgrnkpd", before[0])
    state += jnp.einsum("bnk,bgrnpd->bgrnkpd", chosen[..., count], final[0], precision=HIGHEST)
    values, keys, decay = (select("bnkc,cbns...->bnks...", y) for y in (values, keys, decay))
    whole = lambda last, y: jnp.moveaxis(jnp.concatenate([y, last[None]]), 0, 2)  # [B, N, C + 1, …]
    of = jnp.take_along_axis(whole(final[1], before[1]), number, axis=2)
    segment = whole(jnp.zeros_like(segment[0]), segment)
    segment = jnp.take_along_axis(segment, number[..., None], axis=2)  # [B, N, K, Q]
    early = last_axes(jnp.arange(chunk), segment) < rest[..., None]
    own = early & (segment == places.segment[..., None])
    heads = own[..., None, None]  # [B, N, K, Q, 1, 1]
    decay = jnp.where(heads, decay, 0)
    later = jnp.tri(chunk, k=-1, dtype=decay.dtype)  # [later, earlier]
    after = jnp.einsum("ls,bnklgr->bnksgr", later, decay, precision=HIGHEST)
    weighted = jnp.exp(jnp.where(heads, after, NEVER))[..., None] * values
    through = (own | ~early).all(axis=-1) & (of == places.segment)
    through = jnp.exp(jnp.where(through[..., None, None], decay.sum(axis=3), NEVER))
    through = through.transpose(0, 3, 4, 1, 2)[..., None, None]
    return through * state + jnp.einsum("bnksgrp,bnksgd->bgrnkpd", weighted, keys)


def step(tokens: Tokens, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over one token of every sequence.

    Args:
      tokens: [B, N, …].
      state: [B, H, N, P, S].

    Returns:
      Outputs [B, N, H, P] and the new states, both in float32 (or wider).
    """
    tokens = tokens.wide()
    (batch, number, heads, width), groups = tokens.value.shape, tokens.key.shape[2]
    heads_first = lambda y: jnp.moveaxis(y, 2, 1)
    grouped = lambda y: y.reshape(batch, groups, -1, *y.shape[2:])  # [B, G, R, N, …]
    keep = grouped(heads_first(jnp.exp(tokens.decay)))[..., None, None]
    old = keep * grouped(state.astype(keep.dtype))
    key, query = (heads_first(y)[:, :, None, :, None] for y in (tokens.key, tokens.query))
    added = grouped(heads_first(tokens.value))  # [B, G, R, N, P]
    if tokens.strength is not None:
        strength = grouped(heads_first(tokens.strength))[..., None]
        added = strength * (added - (old * key).sum(axis=-1))
    new = old + added[..., None] * key
    y = (new * query).sum(axis=-1).reshape(batch, heads, number, width)
    return jnp.moveaxis(y, 1, 2), new.reshape(state.shape)
