"""How many branches are worked on at once: batches of a rollout, micro-batches of an update.

A document's trunk serves all of its branches, so a batch takes whole documents if it can, and
splits the branches of a document only if those of one document alone exceed the limit. The results
do not depend on the batches, up to the rounding of sums.
"""

import math

import jax
import jax.numpy as jnp


def largest_batch(
    documents: int, branches: int, unit: int, limit: int, shards: int, name: str
) -> tuple[int, int]:
    """The largest batch within a limit: its documents, and the branches of each. Both divide the
    whole.

    Args:
      documents: B.
      branches: N, of every document.
      unit: branches that must stay together; divides N.
      limit: most branches of a batch, over all devices; 0 for no limit.
      shards: devices that split the documents; divides B.
      name: of the field that sets `limit`, for the error.

    Raises:
      ValueError: if `limit` is less than `unit` branches of one document on each device.
    """
    if not limit:
        return documents, branches
    if size := _largest_divisor(documents, shards, limit // branches):
        return size, branches
    if size := _largest_divisor(branches, unit, limit // shards):
        return shards, size
    raise ValueError(
        f"{name}={limit} is too few: {unit} branches of a document stay together, on each of "
        f"{shards} device(s) that split the batch; set it to {unit * shards} or more, or to 0"
    )


def _largest_divisor(number: int, factor: int, most: int) -> int:
    """The largest divisor of `number` that is a multiple of `factor` and at most `most`; 0 for
    none. The time it takes grows with the square root of the number."""
    if number % factor:
        return 0
    rest = number // factor
    pairs = ((n, rest // n) for n in range(1, math.isqrt(rest) + 1) if rest % n == 0)
    sizes = (factor * n for pair in pairs for n in pair)
    return max((size for size in sizes if size <= most), default=0)


def split(x: jax.Array, parts: int, axis: int = 0) -> jax.Array:
    """[…, M, …] to [parts, …, M / parts, …].

    Neighbors go to different parts, so that each part has a share of every device's rows.
    """
    x = x.reshape(*x.shape[:axis], -1, parts, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + 1, 0)


def unsplit(x: jax.Array, axis: int = 0) -> jax.Array:
    """What `split` was given: [parts, …, M / parts, …] to […, M, …]."""
    x = jnp.moveaxis(x, 0, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
