"""Where thoughts branch off: the rules that choose the K forks of every document.

A fork at position t sees x_<t and predicts x_t … x_{t+H-1}, so t runs from `min_prefix` (at least
1) to length - H. Forks of a document are distinct and in ascending order, except given ones.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

SCORED = ("loss", "entropy", "easy_to_hard")  # those that ask how every token is predicted


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
    """Forks of every document, [B, K] int32.

    Args:
      rule: "uniform" draws without replacement, "stride" spaces evenly from a random start, "loss"
        and "entropy" take the highest `scores`, "easy_to_hard" those around a quantile of them,
        "given" takes what came with the data.
      keys: one PRNG key a document, [B].
      length: tokens of each document, [B]; at least min_prefix + horizon + K - 1.
      count: K.
      limit: T, the longest document.
      min_prefix: first position allowed.
      horizon: H.
      scores: [B, T], score of predicting the token at each position; for the rules of `SCORED`.
      hardness: the quantile of "easy_to_hard", from 0 (lowest scores) to 1 (highest).
      given: [B, K], for "given".
    """
    if rule == "given":
        assert given is not None
        return jnp.asarray(given)
    last = length - horizon  # inclusive
    if rule == "stride":
        room = (last - min_prefix + 1)[:, None]
        start = jax.vmap(lambda key, room: jax.random.randint(key, (1,), 0, room))(keys, room[:, 0])
        steps = jnp.arange(count, dtype=jnp.int32)[None, :]
        # In whole numbers: the start is below room, so forks are distinct and end within it.
        return min_prefix + (steps * room + start) // count
    if rule == "uniform":
        scores = jax.vmap(lambda key: jax.random.uniform(key, (limit,)))(keys)
    assert scores is not None
    allowed = allowed_places(length, limit, min_prefix, horizon)
    scores = jnp.where(allowed, scores, -jnp.inf)
    if rule == "easy_to_hard":
        rank = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)  # the places allowed come last
        wanted = limit - 1 - (1 - hardness) * (allowed.sum(axis=-1, keepdims=True) - 1)
        scores = jnp.where(allowed, -jnp.abs(rank - wanted), -jnp.inf)
    _, forks = jax.lax.top_k(scores, count)
    return jnp.sort(forks, axis=-1).astype(jnp.int32)


def allowed_places(length: jax.Array, limit: int, min_prefix: int, horizon: int) -> jax.Array:
    """Where a fork can stand, bool [B, T]; arguments as of `select_forks`."""
    place = jnp.arange(limit)[None, :]
    return (place >= min_prefix) & (place <= (length - horizon)[:, None])
