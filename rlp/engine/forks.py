"""The rules that choose the K fork positions of every document.

A thought at position t sees x_<t and predicts x_t … x_{t+H-1}, so t is between `min_prefix` (at
least 1) and length - H. The forks of a document are distinct and in ascending order, except those
of the rule "given".
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

SCORED = ("loss", "entropy", "easy_to_hard")  # rules that rank positions by a score of each token


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
    given: Array | None = None,
) -> jax.Array:
    """Choose the forks of every document, [B, K] int32.

    Args:
      rule: "uniform" draws without replacement, "stride" spaces forks evenly from a random start,
        "loss" and "entropy" take the highest `scores`, "easy_to_hard" takes those around a quantile
        of the scores, and "given" takes the forks of the data.
      keys: one PRNG key per document, [B].
      length: tokens of each document, [B]; at least min_prefix + horizon + K - 1.
      count: K.
      limit: T, tokens of the longest document.
      min_prefix: first allowed position.
      horizon: H.
      scores: [B, T] nats, loss or entropy of predicting the token at each position; for `SCORED`.
      hardness: the quantile of "easy_to_hard", from 0 (lowest scores) to 1 (highest).
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
    if rule == "uniform":
        scores = jax.vmap(lambda key: jax.random.uniform(key, (limit,)))(keys)
    assert scores is not None
    allowed = allowed_positions(length, limit, min_prefix, horizon)
    scores = jnp.where(allowed, scores, -jnp.inf)
    if rule == "easy_to_hard":
        rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)  # allowed positions come last
        wanted = limit - 1 - (1 - hardness) * (allowed.sum(axis=-1, keepdims=True) - 1)
        scores = jnp.where(allowed, -jnp.abs(rank - wanted), -jnp.inf)
    _, forks = jax.lax.top_k(scores, count)
    return jnp.sort(forks, axis=-1).astype(jnp.int32)


def allowed_positions(length: jax.Array, limit: int, min_prefix: int, horizon: int) -> jax.Array:
    """Return which positions can be forks, [B, T] bool; arguments as in `select_forks`."""
    position = jnp.arange(limit)[None, :]
    return (position >= min_prefix) & (position <= (length - horizon)[:, None])
