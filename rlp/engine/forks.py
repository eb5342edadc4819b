"""The rules that choose the K fork positions of every document.

A thought at position t sees x_<t and predicts x_t … x_{t+H-1}, so t is between `min_prefix` (at
least 1) and length - H. The forks of a document are distinct and in ascending order.

Forks of the rule "given" come from the data: they may be in any order, and closer than H tokens to
the end of the document. Their targets have the tokens that there are.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

SCORED = ("loss", "entropy", "easy_to_hard", "band")  # rules that need a score of each position


def select_forks(
    rule: str,
    keys: jax.Array,
    length: jax.Array,
    count: int,
    *,
    limit: int,
    min_prefix: int,
    horizon: int,
    scores: jax.Array | None = None,
    hardness: jax.Array | float = 1.0,
    band: tuple[float, float] | None = None,
    given: Array | None = None,
) -> jax.Array:
    """Choose the forks of every document, [B, K] int32.

    Args:
      rule: "uniform" draws without replacement, "stride" spaces forks evenly from a random start,
        "loss" and "entropy" take the highest `scores`, "easy_to_hard" takes those around a quantile
        of the scores, "band" draws without replacement from those with a score in the band (and
        from the others, where there are fewer than K), and "given" takes the forks of the data.
      keys: one PRNG key per document, [B].
      length: tokens of each document, [B]; at least min_prefix + horizon + K - 1, except for
        "given".
      count: K.
      limit: T, tokens of the longest document.
      min_prefix: first allowed position.
      horizon: H.
      scores: [B, T] nats, loss or entropy of predicting the token at each position; for "band",
        the `target_losses`. For the rules of `SCORED`.
      hardness: the quantile of "easy_to_hard", from 0 (lowest scores) to 1 (highest).
      band: lowest and highest score, for "band".
      given: [B, K] int32, for "given".
    """
    if rule == "given":
        assert given is not None
        return jnp.asarray(given)
    last = length - horizon  # inclusive
    if rule == "stride":
        room = (last - min_prefix + 1)[:, None]
        start = jax.vmap(lambda key, room: jax.random.randint(key, (1,), 0, room))(keys, room[:, 0])
        steps = jnp.arange(count, dtype=jnp.int32)[None, :]
        # Integer arithmetic: the start is below room, so forks are distinct and within the room.
        return min_prefix + (steps * room + start) // count
    if rule in ("uniform", "band"):
        draws = jax.vmap(lambda key: jax.random.uniform(key, (limit,)))(keys)
        scores = draws if rule == "uniform" else jnp.where(in_band(scores, band), draws, draws - 1)
    assert scores is not None
    allowed = allowed_positions(length, limit, min_prefix, horizon)
    scores = jnp.where(allowed, scores, -jnp.inf)
    if rule == "easy_to_hard":
        rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)  # allowed positions come last
        wanted = limit - 1 - (1 - hardness) * (allowed.sum(axis=-1, keepdims=True) - 1)
        scores = jnp.where(allowed, -jnp.abs(rank - wanted), -jnp.inf)
    _, forks = jax.lax.top_k(scores, count)
    return jnp.sort(forks, axis=-1).astype(jnp.int32)


def in_band(scores: jax.Array | None, band: tuple[float, float] | None) -> jax.Array:
    """Return whether scores are in the band, bounds included; bool of their shape."""
    assert scores is not None
    assert band is not None
    low, high = band
    return (scores >= low) & (scores <= high)


def target_losses(loss: jax.Array, horizon: int) -> jax.Array:
    """Return the mean loss of the H tokens from each position on, [B, T] nats per token; positions
    with fewer tokens after them are no forks.

    Args:
      loss: of predicting the token at each position, [B, T] nats.
      horizon: H.
    """
    ahead = ((0, 0), (0, horizon - 1))
    return jax.lax.reduce_window(loss, 0.0, jax.lax.add, (1, horizon), (1, 1), ahead) / horizon


def allowed_positions(length: jax.Array, limit: int, min_prefix: int, horizon: int) -> jax.Array:
    """Return which positions can be forks, [B, T] bool; arguments as in `select_forks`."""
    position = jnp.arange(limit)[None, :]
    return (position >= min_prefix) & (position <= (length - horizon)[:, None])
