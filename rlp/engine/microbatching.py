"""Sizes of rollout batches and of the micro-batches of an update.

A document's trunk serves all its branches. So a batch consists of whole documents if the limit
allows one per device, and only otherwise of some branches per document. The results do not depend
on the batches, up to the rounding of sums.
"""

import math

import jax
import jax.numpy as jnp


def largest_batch(
    documents: int, branches: int, unit: int, limit: int, shards: int, name: str
) -> tuple[int, int]:
    """Return the largest batch within a limit: a divisor of B documents, and one of N branches.

    Args:
      documents: B.
      branches: N, branches per document.
      unit: branches that must stay together; divides N.
      limit: at most this number of branches per batch, over all devices; 0 for no limit.
      shards: devices that split the documents; divides B.
      name: of the config field that sets `limit`, for the error.

    Returns:
      Documents per batch, a multiple of `shards`; and branches per document, a multiple of `unit`.

    Raises:
      ValueError: If `limit` is below `unit` branches of one document on each device.
    """
    if not limit:
        return documents, branches
    if size := _largest_divisor(documents, shards, limit // branches):
        return size, branches
    if size := _largest_divisor(branches, unit, limit // shards):
        return shards, size
    raise ValueError(
        f"{name}={limit} is too small: each of {shards} device(s) that split the batch needs at "
        f"least {unit} branches of a document; set it to {unit * shards} or more, or to 0"
    )


def _largest_divisor(number: int, factor: int, most: int) -> int:
    """Return the largest divisor of `number` that is a multiple of `factor` and at most `most`, or
    0 if there is none; in O(sqrt(number))."""
    if number % factor:
        return 0
    rest = number // factor
    pairs = ((n, rest // n) for n in range(1, math.isqrt(rest) + 1) if rest % n == 0)
    sizes = (factor * n for pair in pairs for n in pair)
    return max((size for size in sizes if size <= most), default=0)


def split(x: jax.Array, parts: int, axis: int = 0) -> jax.Array:
    """Split an axis into parts: […, M, …] to [parts, …, M / parts, …].

    Part i has the elements i, i + parts, …, so that each part has a share of every device's rows.
    """
    x = x.reshape(*x.shape[:axis], -1, parts, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + 1, 0)


def unsplit(x: jax.Array, axis: int = 0) -> jax.Array:
    """Invert `split`: [parts, …, M / parts, …] to […, M, …]."""
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
