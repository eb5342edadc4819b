"""Axes cut into blocks, and the integers of a `Sight` as kernels read them."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from models.kernels.visits import Sight

UNSEEN = -0.7 * float(jnp.finfo(jnp.float32).max)  # a score; finite, for the sake of differences
LOG2_E = math.log2(math.e)

CLASS, LOW, HIGH = 0, 1, 2  # rows of `asking`
POSITION = 1  # with CLASS, rows of `telling`


@dataclasses.dataclass(frozen=True)
class Side:
    """An axis of queries or of keys, in blocks, of which the last may reach beyond its end."""

    length: int
    block: int

    @property
    def blocks(self) -> int:
        """How many."""
        return -(-self.length // self.block)

    @property
    def padded(self) -> int:
        """Length of all blocks."""
        return self.blocks * self.block

    def pad(self, x: jax.Array) -> jax.Array:
        """With zeros at the end of the last axis, to whole blocks."""
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.padded - self.length)])


def asking(sight: Sight) -> jax.Array:
    """What queries see: their class, low and high; int32 [B, 3, R]."""
    return jnp.stack([sight.query_class, sight.low, sight.high], axis=1)


def telling(sight: Sight) -> jax.Array:
    """Who sees keys: their class and position; int32 [B, 2, S]."""
    return jnp.stack([sight.key_class, sight.key_position], axis=1)


def mask(asked: Sequence[jax.Array], told: Sequence[jax.Array], axis: int) -> jax.Array:
    """Who sees whom in a pair of blocks, bool, with the queries along `axis` of two.

    Args:
      asked: rows of `asking`, [queries] each.
      told: rows of `telling`, [keys] each.
      axis: 0 or 1.
    """
    query_class, low, high = (jnp.expand_dims(x, 1 - axis) for x in asked)
    key_class, position = (jnp.expand_dims(x, axis) for x in told)
    same = (query_class == key_class) & (key_class > 0)
    return same & (low <= position) & (position <= high)
