"""The random numbers of a step, and sampling from logits.

Every random number is addressed by (step, document, fork, thought). So a thought does not depend on
how documents and forks are distributed over rollout batches, batches and devices.
"""

import jax
import jax.numpy as jnp

from rlp.data.batch import Array

BLOCK = 128  # tokens per block of two-level sampling
# Numbers for fold_in that cannot collide with indices of forks and thoughts, which are small.
FORK_STREAM = NOISE_STREAM = 2**31 - 1
POSITION_STREAM = 2**31 - 2


def document_keys(key: jax.Array, step: jax.Array | int, index: Array) -> jax.Array:
    """Return one PRNG key per document, [B]: fold_in(fold_in(root, step), document).

    Args:
      key: root PRNG key of the run.
      step: of the run.
      index: [B], numbers of the documents in the stream.
    """
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(index))


def fork_keys(keys: jax.Array) -> jax.Array:
    """Return the keys that choose the forks of each document, [B]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, FORK_STREAM))(keys)


def thought_uniforms(
    keys: jax.Array, first: jax.Array | int, forks: int, group: int, length: int
) -> jax.Array:
    """Return one uniform number in [0, 1) per action, [B, forks · G, L].

    Args:
      keys: one PRNG key per document, [B].
      first: index of the first fork.
      forks: number of forks per document.
      group: G.
      length: L.
    """

    def thought(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(key, (length,))

    over = jax.vmap(thought, (None, None, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group)).reshape(
        -1, forks * group, length
    )


def sample(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Sample one token per row by inverse CDF, [M] int32.

    Sampling has two levels: a block of tokens by the sums of the blocks, then a token within the
    block. It needs one number per row instead of noise per token, its sums are short enough for
    float32, and a token of probability 0 is never sampled.

    Args:
      logits: [M, V] float32.
      uniform: [M] in [0, 1).
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    below = 1 - jnp.finfo(jnp.float32).eps  # keeps a draw strictly below the total

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
    """Return one number in [0, 1) per thought, [B, forks, G], independent of its sampling.

    Args: see `thought_uniforms`.
    """

    def one(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(jax.random.fold_in(key, NOISE_STREAM))

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group))


def other_positions(
    keys: jax.Array, fork: jax.Array, length: jax.Array, min_prefix: int, horizon: int
) -> jax.Array:
    """Draw, for every fork, another allowed position of its document, uniformly, [B, K] int32.

    Args:
      keys: one PRNG key per document, [B].
      fork: [B, K] int32.
      length: tokens of each document, [B]. If a document has no other allowed position, the fork
        itself is returned.
      min_prefix: first allowed position.
      horizon: H.
    """
    count = (length - horizon - min_prefix + 1)[:, None]  # allowed positions

    def draw(key, number, others):
        key = jax.random.fold_in(jax.random.fold_in(key, number), POSITION_STREAM)
        return jax.random.randint(key, (), 0, others)

    over = jax.vmap(jax.vmap(draw, (None, 0, None)), (0, None, 0))
    drawn = over(keys, jnp.arange(fork.shape[1]), jnp.maximum(count[:, 0] - 1, 1))
    position = min_prefix + drawn
    return jnp.where(count > 1, position + (position >= fork), fork)
