"""The recurrence of Mamba-2 (arXiv 2405.21060) over documents in rows, and over slots of branches.

Each head keeps a state [P, S] of the text so far. A token with input x, step dt and the vectors b
and c changes it, and reads it:

    state = exp(dt · rate) · state + dt · x ⊗ b            y = state · c

`ssd` computes this for many tokens at once, `step` for one, and `convolve` and `convolve_live`
compute the short convolution before it. Sequences are [B, N, T, …], N in each row: the branches of
a row, or one, the row itself. States are [B, H, N, P, S], as in the caches of layers.

A row may contain several documents (`segment`), between which no state passes, and where branches
will leave, the state is wanted (`Places`). In a branch some slots are dead: they have dt = 0, which
leaves the state as it is, and the convolution passes over them. The gradient of one document with
respect to another, and with respect to dead slots, is exactly zero. No sum in a gradient depends on
the order of a scatter, so two runs on a GPU have the same bits.

All numbers but the inputs are float32 (or wider, if the inputs are). Sums of logarithms of decays
and selections are products with ones and zeros, of full precision; other products have that of the
backend's default.

Axis letters: H heads of P values each, S size of a state, G groups of heads that share b and c.
"""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST
NEVER = -jnp.inf  # the logarithm of a decay to nothing


@flax.struct.dataclass
class Places:
    """Places where branches leave sequences: a branch sees the tokens of its document before."""

    place: jax.Array  # [B, N, K] int32, 0 … T: index in the sequence of the first token not seen
    segment: jax.Array  # [B, N, K] int32, number of the document


def ssd(
    x: jax.Array,
    dt: jax.Array,
    rate: jax.Array,
    b: jax.Array,
    c: jax.Array,
    segment: jax.Array,
    *,
    chunk: int,
    start: jax.Array | None = None,
    places: Places | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over sequences, in chunks (the "state space duality" of Mamba-2).

    Within a chunk, all pairs of tokens are computed at once; from one to the next, the state is
    handed on. The backward pass computes the inside of a chunk again.

    Args:
      x: inputs, [B, N, T, H, P].
      dt: steps, [B, N, T, H], float32; 0 for dead slots.
      rate: rates of decay, [H], negative.
      b: [B, N, T, G, S].
      c: [B, N, T, G, S].
      segment: [B, N, T] int32; a state passes only between tokens of the same segment.
      chunk: maximum number of tokens in a chunk; it changes no result but for rounding.
      start: states before the first token, of its segment, [B, H, N, P, S]; None for zeros.
      places: where the states are wanted.

    Returns:
      Outputs [B, N, T, H, P] in float32 (or wider), and the states: without `places` those after
      the last token, [B, H, N, P, S], else those at the places, [B, H, N, K, P, S].
    """
    (batch, number, length, heads, width), (groups, size) = x.shape, b.shape[-2:]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    chunk = chunks_of(length, chunk)[1]
    grouped = lambda y: y.reshape(*y.shape[:3], groups, heads // groups, *y.shape[4:])
    values, decay = (x * dt[..., None]).astype(dtype), (dt * _last(rate, dt)).astype(dtype)
    tokens = grouped(values), grouped(decay), b.astype(dtype), c.astype(dtype)
    # Padding has dt = 0, and continues the last document.
    parts = *(_chunks(y, chunk, "constant") for y in tokens), _chunks(segment, chunk, "edge")
    if start is None:
        start = jnp.zeros((batch, heads, number, width, size), dtype)
    state = start.astype(dtype).reshape(batch, groups, -1, *start.shape[2:])

    def run(carry: Any, part: Any) -> tuple[Any, Any]:
        after, y = _chunk(carry, *part)
        return after, (y, carry if places is not None else None)

    run = jax.checkpoint(run, prevent_cse=False)
    final, (y, before) = jax.lax.scan(run, (state, segment[..., 0]), parts)
    y = jnp.moveaxis(y, 0, 2).reshape(batch, number, -1, heads, width)[:, :, :length]
    if places is None:
        return y, final[0].reshape(start.shape)
    values, decay, keys, _, segment = parts
    states = states_at(before, final, values, keys, decay, segment, places)
    return y, states.reshape(batch, heads, number, -1, width, size)


def chunks_of(length: int, limit: int) -> tuple[int, int]:
    """Return the number of chunks of sequences of `length` tokens, and the tokens of each: the
    fewest chunks of at most `limit` tokens, and then the shortest."""
    count = -(-length // limit)
    return count, -(-length // count)


def _last(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x with leading axes of size 1, for operations with an array of higher rank."""
    return x.reshape((1,) * (like.ndim - x.ndim) + x.shape)


def _chunks(x: jax.Array, chunk: int, mode: str) -> jax.Array:
    """Pad and split [B, N, T, …] to [chunks, B, N, chunk, …]."""
    more = [(0, 0)] * x.ndim
    more[2] = (0, -x.shape[2] % chunk)
    x = jnp.pad(x, more, mode=mode)
    return jnp.moveaxis(x.reshape(*x.shape[:2], -1, chunk, *x.shape[3:]), 2, 0)


def _chunk(
    before: tuple[jax.Array, jax.Array],
    values: jax.Array,
    decay: jax.Array,
    b: jax.Array,
    c: jax.Array,
    segment: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Run one chunk of Q tokens. Heads are [G, R], R in each group.

    Args:
      before: the states [B, G, R, N, P, S] before the chunk, and their segments [B, N].
      values: dt · x, [B, N, Q, G, R, P].
      decay: logarithm of the decay at each token, [B, N, Q, G, R].
      b: [B, N, Q, G, S].
      c: [B, N, Q, G, S].
      segment: [B, N, Q].

    Returns:
      The states after the chunk with their segments, and the outputs [B, N, Q, G, R, P].
    """
    (state, of), last = before, segment[..., -1]
    near = segment[..., :, None] == segment[..., None, :]  # [B, N, Q, Q]
    near &= _last(jnp.tri(segment.shape[-1], dtype=bool), near)
    # The decay since the segment or the chunk began. As a product with ones and zeros it has no
    # gradient in other documents; that of a cumulative sum would be their rounding errors.
    since = jnp.einsum("bnls,bnsgr->bgrnl", near.astype(decay.dtype), decay, precision=HIGHEST)
    between = _decays(since[..., :, None] - since[..., None, :], near)
    scores = jnp.einsum("bnlgd,bnsgd->bgnls", c, b)[:, :, None] * between
    y = jnp.einsum("bgrnls,bnsgrp->bnlgrp", scores, values)
    own = segment == of[..., None]
    tokens_first = lambda w: w.transpose(0, 3, 4, 1, 2)[..., None]  # [B, N, Q, G, R, 1]
    into = tokens_first(_decays(since, own))
    y += into * jnp.einsum("bnlgd,bgrnpd->bnlgrp", c, state)
    to_end = tokens_first(_decays(since[..., -1:] - since, segment == last[..., None]))
    through = _decays(since[..., -1], own.all(axis=-1))[..., None, None]
    state = through * state + jnp.einsum("bnsgrp,bnsgd->bgrnpd", to_end * values, b)
    return (state, last), y


def _decays(logarithm: jax.Array, where: jax.Array) -> jax.Array:
    """Return exp of [B, G, R, N, …] where [B, N, …] holds, else 0."""
    return jnp.exp(jnp.where(where[:, None, None], logarithm, NEVER))


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
    early = _last(jnp.arange(chunk), segment) < rest[..., None]
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


def step(
    x: jax.Array, dt: jax.Array, rate: jax.Array, b: jax.Array, c: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Run the recurrence over one token of every sequence.

    Args:
      x: inputs, [B, N, H, P].
      dt: steps, [B, N, H], float32; 0 for dead slots.
      rate: rates of decay, [H], negative.
      b: [B, N, G, S].
      c: [B, N, G, S].
      state: [B, H, N, P, S].

    Returns:
      Outputs [B, N, H, P] and the new states, both in float32 (or wider).
    """
    (batch, number, heads, width), groups = x.shape, b.shape[2]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    heads_first = lambda y: jnp.moveaxis(y.astype(dtype), 2, 1)
    grouped = lambda y: y.reshape(batch, groups, -1, *y.shape[2:])  # [B, G, R, N, …]
    old = grouped(state.astype(dtype))
    keep = grouped(heads_first(jnp.exp(dt * _last(rate, dt))))[..., None, None]
    added = grouped(heads_first(dt[..., None] * x))[..., None]  # [B, G, R, N, P, 1]
    b, c = (heads_first(y)[:, :, None, :, None] for y in (b, c))  # [B, G, 1, N, 1, S]
    new = keep * old + added * b
    y = (new * c).sum(axis=-1).reshape(batch, heads, number, width)
    return jnp.moveaxis(y, 1, 2), new.reshape(state.shape)


def convolve(x: jax.Array, taps: jax.Array, bias: jax.Array, segment: jax.Array) -> jax.Array:
    """Convolve each channel with its taps over the last tokens of the same document.

    Args:
      x: [B, N, T, C].
      taps: [taps, C]; the last one is that of the token itself.
      bias: [C].
      segment: [B, N, T] int32.

    Returns:
      [B, N, T, C] in float32 (or wider).
    """

    def back(y: jax.Array, tokens: int) -> jax.Array:
        more = [(0, 0)] * y.ndim
        more[2] = (tokens, 0)
        return jnp.pad(y, more)[:, :, : y.shape[2]]

    inputs = [x]
    for tokens in range(1, len(taps)):
        same = back(segment, tokens) == segment
        same &= _last(jnp.arange(x.shape[2]) >= tokens, same)
        inputs.append(jnp.where(same[..., None], back(x, tokens), 0))
    return _weighted(inputs[::-1], taps, bias)


def _weighted(inputs: Sequence[jax.Array], taps: jax.Array, bias: jax.Array) -> jax.Array:
    """Return the sum of inputs [..., C], the oldest first, times their taps, and the bias."""
    dtype = jnp.promote_types(inputs[0].dtype, jnp.float32)
    total = _last(bias.astype(dtype), inputs[0])
    for x, tap in zip(inputs, taps.astype(dtype), strict=True):
        total += x.astype(dtype) * _last(tap, x)
    return total


def windows_at(x: jax.Array, segment: jax.Array, places: Places, size: int) -> jax.Array:
    """Return the last `size` tokens of the document before each place, 0 where there are none.

    Args:
      x: [B, N, T, C].
      segment: [B, N, T] int32.
      places: K places of each sequence.
      size: number of tokens.

    Returns:
      [B, N, K, size, C].
    """
    length = x.shape[2]
    index = places.place[..., None] + jnp.arange(-size, 0)[None, None, None]  # [B, N, K, size]
    of = jnp.take_along_axis(segment[:, :, None], jnp.clip(index, 0, length - 1), axis=-1)
    index = jnp.where(of == places.segment[..., None], index, -1)
    chosen = jax.nn.one_hot(index, length, dtype=x.dtype)
    return jnp.einsum("bnkst,bntc->bnksc", chosen, x, precision=HIGHEST)


def convolve_live(
    x: jax.Array, taps: jax.Array, bias: jax.Array, live: jax.Array, window: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Convolve each channel with its taps over live slots alone, as if there were no dead ones.

    Args:
      x: [B, N, T, C].
      taps: [taps, C]; the last one is that of the slot itself.
      bias: [C].
      live: [B, N, T] bool.
      window: the last live inputs before these slots, [B, N, taps - 1, C].

    Returns:
      [B, N, T, C] in float32 (or wider), 0 for dead slots, and the window after these slots.
    """
    size = window.shape[2]
    row = jnp.concatenate([window.astype(x.dtype), x], axis=2)
    if x.shape[2] == 1:
        out = _weighted([row[:, :, i : i + 1] for i in range(size + 1)], taps, bias)
        after = jnp.where(live[..., None], row[:, :, 1:], row[:, :, :-1])
        return jnp.where(live[..., None], out, 0), after
    # The index of the last live slot up to each one. The window is live, so it always exists.
    alive = jnp.pad(live, [(0, 0), (0, 0), (size, 0)], constant_values=True)
    number = _last(jnp.arange(alive.shape[2]), alive)
    newest = jax.lax.cummax(jnp.where(alive, number, 0), axis=2)
    before = lambda index: jnp.take_along_axis(newest, index - 1, axis=2)
    values = jax.vmap(jax.vmap(lambda y, index: y[index]))
    index = jnp.broadcast_to(number[..., size:], live.shape)
    inputs = [x]
    for _ in range(size):
        # Different live slots read different inputs, so that the scatter of the gradient adds
        # nothing but zeros, those of dead slots.
        index = before(index)
        inputs.append(values(row, index))
    last = [newest[:, :, -1:]]
    for _ in range(size - 1):
        last.append(before(last[-1]))
    out = _weighted(inputs[::-1], taps, bias)
    after = values(row, jnp.concatenate(last[::-1], axis=2))
    return jnp.where(live[..., None], out, 0), after
