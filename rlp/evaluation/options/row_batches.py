"""Rows of different lengths in batches of few shapes: a program is compiled for each shape."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_sharding

T = TypeVar("T")
MAX_BRANCHES = 16  # of a row; more options or questions are divided over several rows
MIN_SLOTS = 8  # tokens of options of several tokens are padded to 8, 16, 32, …
Shape = tuple[int, ...]


def doubled(size: int, least: int = 1) -> int:
    """Return the smallest of least, 2 · least, 4 · least, … that is at least `size`."""
    return least * 2 ** max(0, math.ceil(math.log2(max(size, 1) / least)))


def slots_of(size: int) -> int:
    """Return the padded number of tokens of options of which the longest has `size`."""
    return doubled(size, MIN_SLOTS) if size > 1 else 1


def row_batches(
    rows: Sequence[T],
    shape: Callable[[T], Shape],
    tokens: Callable[[Shape], int],
    limit: int,
    shards: int,
) -> Iterator[tuple[Shape, list[T], int]]:
    """Yield rows of one shape at a time, the longest ones first.

    Args:
      rows: in any order.
      shape: returns the padded sizes of a row, its length first.
      tokens: returns the tokens that a row of a shape has in memory.
      limit: at most this number of tokens per device, unless a single row has more.
      shards: devices that split the rows.

    Yields:
      The shape, the rows, and the number to which they are to be padded: a power of two per device.
    """
    for size, group in itertools.groupby(sorted(rows, key=shape, reverse=True), shape):
        same = list(group)
        most = shards * 2 ** int(math.log2(max(1, limit // tokens(size))))
        for first in range(0, len(same), most):
            part = same[first : first + most]
            yield size, part, shards * doubled(-(-len(part) // shards))


def table(rows: Sequence[Sequence[int]], count: int, width: int) -> np.ndarray:
    """Return rows of integers as int32 [count, width], padded with 0; the last row is repeated."""
    padded = np.zeros((count, width), np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    padded[len(rows) :] = padded[len(rows) - 1]
    return padded


def placed(arrays: Any, mesh: Mesh) -> Any:
    """Return a tree of arrays [B, …] with their rows sharded over a mesh, which must divide B."""
    sharding = batch_sharding(mesh)
    place = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
    return jax.tree.map(place, arrays)
