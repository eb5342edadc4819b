"""Random numbers of a step, and draws from a network's probabilities.

Every number belongs to (step, document, fork, thought), so a thought is the same however documents
and forks are grouped into rollout batches, batches or devices.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

BLOCK = 128  # tokens whose probabilities are summed first, in two-level sampling
# Keys beside the numbers of forks and thoughts, which are small.
FORK_STREAM = NOISE_STREAM = 2**31 - 1
PLACE_STREAM = 2**31 - 2


def document_keys(key: jax.Array, step: jax.Array | int, index: Array) -> jax.Array:
    """One PRNG key per document of a step: fold_in(fold_in(root, step), document)."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(index))


def fork_keys(keys: jax.Array) -> jax.Array:
    """The key that chooses each document's forks."""
    return jax.vmap(lambda key: jax.random.fold_in(key, FORK_STREAM))(keys)


def thought_uniforms(
    keys: jax.Array, first: jax.Array | int, forks: int, group: int, length: int
) -> jax.Array:
    """One uniform number in [0, 1) per document, fork from `first` on, thought and action:
    [B, forks · G, L]."""

    def thought(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(key, (length,))

    over = jax.vmap(thought, (None, None, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group)).reshape(
        -1, forks * group, length
    )


def sample(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse-CDF sample of each row: logits [M, V], uniform [M] in [0, 1); int32 [M].

    In two levels: a block of tokens by the blocks' sums, then a token of that block. One number per
    row instead of noise per token, and sums short enough for float32. Never picks probability 0.
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    below = 1 - jnp.finfo(jnp.float32).eps  # keeps a draw strictly under the total it is held to

    def pick(weights, draw):
        mass = jnp.cumsum(weights, axis=-1)
        draw = jnp.minimum(draw, mass[:, -1] * below)[:, None]
        choice = jnp.sum(mass <= draw, axis=-1)
        before = jnp.max(jnp.where(mass <= draw, mass, 0), axis=-1)
        return choice, draw[:, 0] - before

    sums = weights.sum(axis=-1)
    block, rest = pick(sums, uniform * sums.sum(axis=-1))
    inside = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    token, _ = pick(inside, jnp.maximum(rest, 0))
    return (block * BLOCK + token).astype(jnp.int32)


def noise(keys: jax.Array, first: jax.Array | int, forks: int, group: int) -> jax.Array:
    """One number in [0, 1) per document, fork from `first` on and thought, [B, forks, group]; none
    of them is one of the draws that the thought is sampled with."""

    def one(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(jax.random.fold_in(key, NOISE_STREAM))

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group))


def other_places(
    keys: jax.Array, fork: jax.Array, length: jax.Array, min_prefix: int, horizon: int
) -> jax.Array:
    """For every fork another place of its document where a fork could stand, uniform, [B, K].

    Args:
      keys: one PRNG key a document, [B].
      fork: [B, K].
      length: tokens of each document, [B]; where it has no other place, that one is returned.
      min_prefix: first place allowed.
      horizon: H.
    """
    count = (length - horizon - min_prefix + 1)[:, None]  # places allowed

    def draw(key, number, others):
        key = jax.random.fold_in(jax.random.fold_in(key, number), PLACE_STREAM)
        return jax.random.randint(key, (), 0, others)

    over = jax.vmap(jax.vmap(draw, (None, 0, None)), (0, None, 0))
    drawn = over(keys, jnp.arange(fork.shape[1]), jnp.maximum(count[:, 0] - 1, 1))
    place = min_prefix + drawn
    return jnp.where(count > 1, place + (place >= fork), fork)
