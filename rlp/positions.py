"""Where thoughts branch off: the rules that choose the K forks of every document.

A fork at position t sees x_<t and predicts x_t … x_{t+H-1}, so t runs from `min_prefix` (at least
1) to length - H. Forks of a document are distinct and in ascending order, except given ones.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

RULES = ("uniform", "stride", "loss", "entropy", "given")


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
    given: Array | None = None,
) -> jax.Array:
    """Forks of every document, [B, K] int32.

    Args:
      rule: "uniform" draws without replacement, "stride" spaces evenly from a random start, "loss"
        and "entropy" take the highest `scores`, "given" takes what came with the data.
      keys: one PRNG key a document, [B].
      length: tokens of each document, [B]; at least min_prefix + horizon + K - 1.
      count: K.
      limit: T, the longest document.
      min_prefix: first position allowed.
      horizon: H.
      scores: [B, T], score of predicting the token at each position; for "loss" and "entropy".
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
    place = jnp.arange(limit)[None, :]
    allowed = (place >= min_prefix) & (place <= last[:, None])
    _, forks = jax.lax.top_k(jnp.where(allowed, scores, -jnp.inf), count)
    return jnp.sort(forks, axis=-1).astype(jnp.int32)
