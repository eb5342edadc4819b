"""Short convolutions of channels over the tokens of a document, before a recurrence.

Sequences are [B, N, T, C], N in each row, as in `models.recurrence`: the branches of a row, or one,
the row itself. A row may contain several documents, over which the convolution does not reach. In a
branch some slots are dead, and the convolution passes over them; the last live inputs before the
slots are its window. Results are float32 (or wider, if the inputs are).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from models.recurrence import HIGHEST, Places, last_axes


def convolve(
    x: jax.Array, taps: jax.Array, bias: jax.Array | None, segment: jax.Array
) -> jax.Array:
    """Convolve each channel with its taps over the last tokens of the same document.

    Args:
      x: [B, N, T, C].
      taps: [taps, C]; the last one is that of the token itself.
      bias: [C], or None.
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
        same &= last_axes(jnp.arange(x.shape[2]) >= tokens, same)
        inputs.append(jnp.where(same[..., None], back(x, tokens), 0))
    return _weighted(inputs[::-1], taps, bias)


def _weighted(inputs: Sequence[jax.Array], taps: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Return the sum of inputs [..., C], the oldest first, times their taps, plus the bias."""
    dtype = jnp.promote_types(inputs[0].dtype, jnp.float32)
    total = jnp.zeros((), dtype) if bias is None else last_axes(bias.astype(dtype), inputs[0])
    for x, tap in zip(inputs, taps.astype(dtype), strict=True):
        total += x.astype(dtype) * last_axes(tap, x)
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
    x: jax.Array, taps: jax.Array, bias: jax.Array | None, live: jax.Array, window: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Convolve each channel with its taps over live slots alone, as if there were no dead ones.

    Args:
      x: [B, N, T, C].
      taps: [taps, C]; the last one is that of the slot itself.
      bias: [C], or None.
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
    number = last_axes(jnp.arange(alive.shape[2]), alive)
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
