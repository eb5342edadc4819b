"""Blocked axes, and the integers of a `RangeMask` in the layout that kernels read."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from models.kernels.visits import RangeMask

Ref = Any  # a Pallas reference (jax.Ref) to an array in memory, or a view of one
# Masked score; finite, so that a difference of two is not NaN.
MASK_VALUE = -0.7 * float(jnp.finfo(jnp.float32).max)
LOG2_E = math.log2(math.e)

SEGMENT, LOW, HIGH = 0, 1, 2  # rows of `q_mask_rows`
POSITION = 1  # second row of `kv_mask_rows`; the first is SEGMENT


@dataclasses.dataclass(frozen=True)
class BlockedAxis:
    """A query or key axis cut into blocks; the last block may extend past the end of the axis.

    Attributes:
      length: tokens of the axis.
      block: tokens of a block.
    """

    length: int
    block: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.length // self.block)

    @property
    def padded(self) -> int:
        """Total length of all blocks, at least `length`."""
        return self.blocks * self.block

    def pad(self, x: jax.Array) -> jax.Array:
        """Pad the last axis of `x` with zeros to `padded`."""
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.padded - self.length)])


def q_mask_rows(mask: RangeMask) -> jax.Array:
    """Segment, first and last visible position of each query; int32 [B, 3, R]."""
    return jnp.stack([mask.q_segment, mask.low, mask.high], axis=1)


def kv_mask_rows(mask: RangeMask) -> jax.Array:
    """Segment and position of each key; int32 [B, 2, S]."""
    return jnp.stack([mask.kv_segment, mask.kv_position], axis=1)


def block_mask(q_rows: Sequence[jax.Array], kv_rows: Sequence[jax.Array], q_axis: int) -> jax.Array:
    """Dense bool mask of a pair of blocks, [queries, keys] or its transpose.

    Args:
      q_rows: rows of `q_mask_rows`, [queries] each.
      kv_rows: rows of `kv_mask_rows`, [keys] each.
      q_axis: axis of the queries in the result, 0 or 1.
    """
    q_segment, low, high = (jnp.expand_dims(x, 1 - q_axis) for x in q_rows)
    kv_segment, position = (jnp.expand_dims(x, q_axis) for x in kv_rows)
    same = (q_segment == kv_segment) & (kv_segment > 0)
    return same & (low <= position) & (position <= high)
