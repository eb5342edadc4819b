"""The random numbers of a step, and sampling from logits.

Every random number is addressed by (step, document, fork, thought). So a thought does not depend on
how documents and forks are distributed over rollout batches, batches and devices.
"""

from collections.abc import Callable

import flax.struct
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


def sample(
    logits: jax.Array, uniform: jax.Array, kept: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sample one token per row by inverse CDF; return tokens [M] int32 and their log-probabilities
    [M], nats. The exponentials of the logits, which are most of the work, serve both.

    Sampling has two levels: a block of tokens by the sums of the blocks, then a token within the
    block. It needs one number per row instead of noise per token, its sums are short enough for
    float32, and a token of probability 0 is never sampled. A row that is not finite has
    token 0, with a log-probability of nan.

    Args:
      logits: [M, V] float32.
      uniform: [M] in [0, 1).
      kept: [M, V] bool, the tokens that may be sampled (see `truncation`); None for all. The
        log-probabilities are those of the distribution before it is truncated.
    """
    rows, size = logits.shape
    top = logits.max(axis=-1, keepdims=True)
    whole = jnp.exp(logits - top)
    weights = whole if kept is None else jnp.where(kept, whole, 0)
    weights = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    sums = weights.sum(axis=-1)
    total = sums.sum(axis=-1)
    block, rest = _pick(sums, uniform * total)
    inside = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    token, _ = _pick(inside, jnp.maximum(rest, 0))
    token = (block * BLOCK + token).astype(jnp.int32)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)
    normalizer = total if kept is None else whole.sum(axis=-1)
    return token, (chosen - top)[:, 0] - jnp.log(normalizer)


def _pick(weights: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the first place at which the running sum of weights [M, n] exceeds `draw` [M], and
    what is left of the draw there. No sum of nan exceeds a draw; then it is place 0, which every
    vocabulary has."""
    mass, positive = jnp.cumsum(weights, axis=-1), weights > 0
    # Running sums are rounded differently, so even where the weight is 0, one may exceed the last.
    most = jnp.max(jnp.where(positive, mass, 0), axis=-1)
    below = 1 - jnp.finfo(jnp.float32).eps  # keeps a draw strictly below the total
    draw = jnp.minimum(draw, most * below)[:, None]
    size = weights.shape[-1]
    places = jnp.arange(size)[None, :]
    first = jnp.min(jnp.where(positive & (mass > draw), places, size), axis=-1)
    choice = jnp.where(first < size, first, 0)
    before = jnp.max(jnp.where(mass <= draw, mass, 0), axis=-1)
    return choice, draw[:, 0] - before


def truncation(
    logits: jax.Array, top_k: Array | None = None, top_p: Array | None = None
) -> jax.Array:
    """Return the tokens that top-k and then top-p sampling keep, [M, V] bool.

    Top-k keeps the k likeliest tokens. Top-p keeps all tokens whose probability is at least the
    largest threshold at which they have a share p of what top-k has kept. Of equally likely tokens,
    all are kept or none, so the order of the vocabulary does not matter. Nothing is sorted: the
    thresholds are found by bisection (`_least`).

    Args:
      logits: [M, V] float32, divided by the temperature.
      top_k: [M] int32; 0 keeps all tokens of a row. None if it is 0 for all rows.
      top_p: [M] float32 above 0; 1 keeps all tokens of a row. None if it is 1 for all rows.
    """
    gaps = logits.max(axis=-1, keepdims=True) - logits
    # Of the logits, not of the gaps: a compiler may compute a difference again where it is used,
    # rounded in another way, and the token at the threshold would be lost.
    pattern = _falling(logits)
    kept = jnp.ones(logits.shape, bool)
    if top_k is not None:
        count = lambda bound: jnp.sum(pattern <= bound[:, None], axis=-1)
        bound = _least(lambda bound: count(bound) >= top_k, len(logits))
        kept = (pattern <= bound[:, None]) | (top_k < 1)[:, None]
    if top_p is not None:
        weights = jnp.where(kept, jnp.exp(-gaps), 0)
        share = top_p * weights.sum(axis=-1)
        mass = lambda bound: jnp.sum(jnp.where(pattern <= bound[:, None], weights, 0), axis=-1)
        bound = _least(lambda bound: mass(bound) >= share, len(logits))
        kept = kept & ((pattern <= bound[:, None]) | (top_p >= 1)[:, None])
    return kept


def _falling(x: jax.Array) -> jax.Array:
    """Return integers whose order is the reverse of that of float32 numbers, int32."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return ~jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)


def _least(enough: Callable[[jax.Array], jax.Array], rows: int) -> jax.Array:
    """Return the least integer that is enough, int32 [rows]; the largest int32 if none is. Halving
    the range of int32 32 times leaves one.

    Args:
      enough: from integers, int32 [rows], to whether they are, bool [rows]; if one is, so are all
        above it.
      rows: number of integers.
    """

    def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, rounded down, without overflow
        reached = enough(middle)
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    least, most = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max
    ends = jnp.full(rows, least, jnp.int32), jnp.full(rows, most, jnp.int32)
    return jax.lax.fori_loop(0, 32, halve, ends)[1]


@flax.struct.dataclass
class Sampler:
    """How the next tokens of M rows are chosen.

    Attributes:
      temperature: [M] float32; 0 takes the likeliest token.
      top_k: [M] int32; 0 keeps all tokens. None if it is 0 for all rows.
      top_p: [M] float32; 1 keeps all tokens. None if it is 1 for all rows.
    """

    temperature: Array
    top_k: Array | None = None
    top_p: Array | None = None

    @property
    def divisor(self) -> jax.Array:
        """What logits are divided by, [M, 1]: the temperature, or 1 where it is 0."""
        return jnp.where(self.temperature > 0, self.temperature, 1)[:, None]

    def choose(self, logits: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a token per row, [M] int32, and its log-probability before truncation [M], nats.

        Args:
          logits: [M, V] float32, divided by `divisor`.
          uniform: [M] in [0, 1).
        """
        kept = None
        if self.top_k is not None or self.top_p is not None:
            kept = truncation(logits, self.top_k, self.top_p)
        drawn, best = sample(logits, uniform, kept), likeliest(logits)
        return jax.tree.map(lambda x, y: jnp.where(self.temperature > 0, x, y), drawn, best)


def likeliest(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the likeliest token per row, the first one of several, [M] int32, and its
    log-probability [M], nats; logits are [M, V] float32."""
    total = jnp.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), -jnp.log(total)


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
    last = (length - horizon)[:, None]
    inside = (fork >= min_prefix) & (fork <= last)  # a given fork may be outside
    others = last - min_prefix + 1 - inside  # allowed positions but the fork

    def draw(key, number, others):
        key = jax.random.fold_in(jax.random.fold_in(key, number), POSITION_STREAM)
        return jax.random.randint(key, (), 0, others)

    over = jax.vmap(jax.vmap(draw, (None, 0, 0)), (0, None, 0))
    drawn = over(keys, jnp.arange(fork.shape[1]), jnp.maximum(others, 1))
    position = min_prefix + drawn
    return jnp.where(others > 0, position + (inside & (position >= fork)), fork)
