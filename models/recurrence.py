"""Recurrences over documents in rows, and over slots of branches: Mamba-2 and the gated delta rule.

Each head keeps a state [S, P] of the text so far. A token lets it decay, adds its value times its
key to it, and reads it with its query:

    state = exp(decay) · state + key ⊗ value            y = query · state

In Mamba-2 (arXiv 2405.21060) the value is dt · x, the decay dt · rate, and key and query are called
b and c (`mamba_tokens`). In the gated delta rule (arXiv 2412.06464) a token replaces a share of the
value that the state has for its key, its strength (`delta_tokens`): instead of its value it adds

    strength · (value - exp(decay) · key · state)

`recur` computes this for many tokens at once, `step` for one. Sequences are [B, N, T, …], N in each
row: the branches of a row, or one, the row itself. States are [B, H, N, S, P], as in the caches of
layers. Inside, groups, sequences, heads and tokens are axes in this order, as products want them:
for another, XLA's CPU backend would copy their operands.

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
      start: states before the first token, of its segment, [B, H, N, S, P]; None for zeros.
      places: where the states are wanted.

    Returns:
      Outputs [B, N, T, H, P] in float32 (or wider), and the states: without `places` those after
      the last token, [B, H, N, S, P], else those at the places, [B, H, N, K, S, P].
    """
    tokens = tokens.wide()
    (batch, number, length, heads, width), dtype = tokens.value.shape, tokens.value.dtype
    groups, size = tokens.key.shape[-2:]
    count, chunk = chunks_of(length, chunk)
    # Padding does nothing, like a dead slot, and continues the last document.
    parts = _heads_first(jax.tree.map(lambda y: _chunks(y, chunk, "constant"), tokens), groups)
    of_chunks = _chunks(segment, chunk, "edge")
    if start is None:
        start = jnp.zeros((batch, heads, number, size, width), dtype)
    before = _grouped_states(start.astype(dtype), groups), segment[..., 0]

    def run(carry: Any, part: Any) -> tuple[Any, Any]:
        after, y, added = _chunk(carry, *part)
        kept = None if tokens.strength is None else added  # else they are the values
        return after, (y, None if places is None else (carry, kept))

    run = jax.checkpoint(run, prevent_cse=count == 1)
    if count == 1:  # without a loop, states that nobody reads are not computed
        final, outputs = run(before, jax.tree.map(lambda x: x[0], (parts, of_chunks)))
        y, at_chunks = jax.tree.map(lambda x: x[None], outputs)
    else:
        final, (y, at_chunks) = jax.lax.scan(run, before, (parts, of_chunks))
    y = y.transpose(1, 3, 0, 5, 2, 4, 6)  # from [C, B, G, N, R, Q, P]
    y = y.reshape(batch, number, -1, heads, width)[:, :, :length]
    if places is None:
        return y, _states(final[0])
    before, added = at_chunks
    values = parts.value if added is None else added
    return y, _states(states_at(before, final, values, parts.key, parts.decay, of_chunks, places))


def chunks_of(length: int, limit: int) -> tuple[int, int]:
    """Return the number of chunks of sequences of `length` tokens, and the tokens of each: the
    fewest chunks of at most `limit` tokens, and then the shortest."""
    count = -(-length // limit)
    return count, -(-length // count)


def last_axes(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x with leading axes of size 1, for operations with an array of higher rank."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def _chunks(x: jax.Array, chunk: int, mode: str) -> jax.Array:
    """Pad and split [B, N, T, …] to [chunks, B, N, chunk, …]."""
    more = [(0, 0)] * x.ndim
    more[2] = (0, -x.shape[2] % chunk)
    x = jnp.pad(x, more, mode=mode)
    return jnp.moveaxis(x.reshape(*x.shape[:2], -1, chunk, *x.shape[3:]), 2, 0)


def _heads_first(tokens: Tokens, groups: int) -> Tokens:
    """Return tokens [C, B, N, Q, H or G, …] with the axes of heads before those of tokens."""

    def of_heads(y: jax.Array) -> jax.Array:  # [C, B, G, N, R, Q, …]
        y = y.reshape(*y.shape[:4], groups, -1, *y.shape[5:])
        return jnp.moveaxis(y, (4, 5), (2, 4))

    value, decay, strength = jax.tree.map(of_heads, (tokens.value, tokens.decay, tokens.strength))
    key, query = (jnp.moveaxis(y, 4, 2) for y in (tokens.key, tokens.query))  # [C, B, G, N, Q, S]
    return Tokens(value, key, query, decay, strength)


def _grouped_states(states: jax.Array, groups: int) -> jax.Array:
    """Return states [B, H, N, S, P] as [B, G, N, S, R, P]."""
    states = states.reshape(len(states), groups, -1, *states.shape[2:])
    return jnp.moveaxis(states, 2, 4)


def _states(grouped: jax.Array) -> jax.Array:
    """Return states [B, G, N, …, S, R, P] as [B, H, N, …, S, P]."""
    states = jnp.moveaxis(grouped, -2, 2)
    return states.reshape(len(states), -1, *states.shape[3:])


def _chunk(
    before: tuple[jax.Array, jax.Array], tokens: Tokens, segment: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """Run one chunk of Q tokens.

    Args:
      before: the states [B, G, N, S, R, P] before the chunk, and their segments [B, N].
      tokens: of heads [B, G, N, R, Q, …] or groups [B, G, N, Q, …].
      segment: [B, N, Q].

    Returns:
      The states after the chunk with their segments, the outputs [B, G, N, R, Q, P], and what the
      tokens add to the states, times their keys, in the same shape.
    """
    (state, of), last = before, segment[..., -1]
    key, query, decay = tokens.key, tokens.query, tokens.decay
    near = segment[..., :, None] == segment[..., None, :]  # [B, N, Q, Q]
    near &= last_axes(jnp.tri(segment.shape[-1], dtype=bool), near)
    # The decay since the segment or the chunk began. As a product with ones and zeros it has no
    # gradient in other documents; that of a cumulative sum would be their rounding errors.
    since = jnp.einsum("bnls,bgnrs->bgnrl", near.astype(decay.dtype), decay, precision=HIGHEST)
    between = _decays(since[..., :, None] - since[..., None, :], near)
    own = segment == of[..., None]
    into = _decays(since, own)[..., None]
    added = _added(tokens, between, into, state)
    scores = jnp.einsum("bgnld,bgnsd->bgnls", query, key)[:, :, :, None] * between
    y = jnp.einsum("bgnrls,bgnrsp->bgnrlp", scores, added)
    y += into * jnp.einsum("bgnld,bgndrp->bgnlrp", query, state).swapaxes(3, 4)
    to_end = _decays(since[..., -1:] - since, segment == last[..., None])[..., None]
    through = _decays(since[..., -1:], own.all(axis=-1, keepdims=True))[..., None, :, :]
    ended = (to_end * added).swapaxes(3, 4)
    state = through * state + jnp.einsum("bgnsd,bgnsrp->bgndrp", key, ended)
    return (state, last), y, added


def _decays(logarithm: jax.Array, where: jax.Array) -> jax.Array:
    """Return exp of [B, G, N, R, …] where [B, N, …] holds, else 0."""
    return jnp.exp(jnp.where(where[:, None, :, None], logarithm, NEVER))


def _added(tokens: Tokens, between: jax.Array, into: jax.Array, state: jax.Array) -> jax.Array:
    """Return what the tokens of a chunk add to the states, times their keys.

    By the delta rule that is u = strength · (value - what the state has for the key), and the state
    of a token contains what those before it added. So u solves a triangular system.

    Args:
      tokens: of heads [B, G, N, R, Q, …] or groups [B, G, N, Q, …].
      between: decays from one token to another, [B, G, N, R, Q, Q].
      into: decays since the chunk began, [B, G, N, R, Q, 1].
      state: before the chunk, [B, G, N, S, R, P].

    Returns:
      [B, G, N, R, Q, P].
    """
    if tokens.strength is None:
        return tokens.value
    key, strength = tokens.key, tokens.strength[..., None]
    held = jnp.einsum("bgnld,bgndrp->bgnlrp", key, state, precision=HIGHEST)
    held = into * held.swapaxes(3, 4)
    alike = jnp.einsum("bgnld,bgnsd->bgnls", key, key, precision=HIGHEST)[:, :, :, None]
    earlier = jnp.tri(between.shape[-1], k=-1, dtype=bool)
    system = jnp.where(last_axes(earlier, between), alike * between, 0)
    inverse = unit_inverse(strength * system)
    wanted = strength * (tokens.value - held)
    return jnp.einsum("bgnrls,bgnrsp->bgnrlp", inverse, wanted, precision=HIGHEST)


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
      before: states [C, B, G, N, S, R, P] before each of C chunks, and their segments [C, B, N].
      final: states [B, G, N, S, R, P] after the last one, and their segments [B, N].
      values: [C, B, G, N, R, Q, P]; a token adds key ⊗ value to the state.
      keys: [C, B, G, N, Q, S].
      decay: logarithm of the decay at each token, [C, B, G, N, R, Q].
      segment: [C, B, N, Q].
      places: K places of each sequence.

    Returns:
      [B, G, N, K, S, R, P].
    """
    count, chunk = segment.shape[0], segment.shape[-1]
    number, rest = places.place // chunk, places.place % chunk  # [B, N, K]
    # A place after the last whole chunk is at the start of one more, which has no tokens.
    chosen = jax.nn.one_hot(number, count + 1, dtype=values.dtype)
    of_place = "bnkc,cbgn...->bgnk..."
    select = lambda y: jnp.einsum(of_place, chosen[..., : len(y)], y, precision=HIGHEST)
    state = select(before[0])
    state += jnp.einsum("bnk,bgndrp->bgnkdrp", chosen[..., count], final[0], precision=HIGHEST)
    values, keys, decay = select(values), select(keys), select(decay)
    whole = lambda last, y: jnp.moveaxis(jnp.concatenate([y, last[None]]), 0, 2)  # [B, N, C + 1, …]
    of = jnp.take_along_axis(whole(final[1], before[1]), number, axis=2)
    segment = whole(jnp.zeros_like(segment[0]), segment)
    segment = jnp.take_along_axis(segment, number[..., None], axis=2)  # [B, N, K, Q]
    early = last_axes(jnp.arange(chunk), segment) < rest[..., None]
    own = early & (segment == places.segment[..., None])
    heads = own[:, None, :, :, None]  # [B, 1, N, K, 1, Q]
    decay, later = jnp.where(heads, decay, 0), jnp.tri(chunk, k=-1, dtype=decay.dtype)
    after = jnp.einsum("ls,bgnkrl->bgnkrs", later, decay, precision=HIGHEST)
    weighted = jnp.exp(jnp.where(heads, after, NEVER))[..., None] * values
    through = (own | ~early).all(axis=-1) & (of == places.segment)
    through = jnp.exp(jnp.where(through[:, None, :, :, None], decay.sum(axis=-1), NEVER))
    added = jnp.einsum("bgnksd,bgnksrp->bgnkdrp", keys, weighted.swapaxes(4, 5))
    return through[..., None, :, None] * state + added


def step(tokens: Tokens, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over one token of every sequence.

    Args:
      tokens: [B, N, …].
      state: [B, H, N, S, P].

    Returns:
      Outputs [B, N, H, P] and the new states, both in float32 (or wider).
    """
    tokens = tokens.wide()
    heads, groups = tokens.value.shape[2], tokens.key.shape[2]
    heads_first = lambda y: jnp.moveaxis(y, 2, 1)
    of_heads = lambda y: jnp.repeat(heads_first(y), heads // groups, axis=1)[..., None]
    key, query = of_heads(tokens.key), of_heads(tokens.query)  # [B, H, N, S, 1]
    old = heads_first(jnp.exp(tokens.decay))[..., None, None] * state.astype(tokens.value.dtype)
    added = heads_first(tokens.value)
    if tokens.strength is not None:
        added = heads_first(tokens.strength)[..., None] * (added - _read(old, key))
    new = old + key * added[..., None, :]
    return jnp.moveaxis(_read(new, query), 1, 2), new


def _read(state: jax.Array, key: jax.Array) -> jax.Array:
    """Return what states [B, H, N, S, P] have for keys [B, H, N, S, 1], [B, H, N, P].

    XLA's CPU backend sums over S 5 to 80 times as fast if there is no axis of size 1.
    """
    unit = [axis for axis in range(3) if state.shape[axis] == 1]
    held = (jnp.squeeze(state, unit) * jnp.squeeze(key, unit)).sum(axis=-2)
    return jnp.expand_dims(held, unit)
