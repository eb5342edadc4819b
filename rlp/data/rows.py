"""The rows of a step, each read by the host that needs it.

A batch consists of global arrays over all devices of all hosts; a host reads only the rows of its
local devices. The mesh alone determines which rows those are, so the documents of a step and their
order do not depend on the number of hosts.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.sharding import batch_sharding, batch_shards
from rlp.data.batch import Array, Batch


@dataclasses.dataclass(frozen=True)
class Rows:
    """B rows, any part of which can be read.

    Attributes:
      count: B.
      read: `read(first, size)` returns `size` rows from `first` on, as numpy arrays.
    """

    count: int
    read: Callable[[int, int], Batch]

    @classmethod
    def of(cls, batch: Batch) -> "Rows":
        """Return the rows of a batch that every host has in full."""
        cut = lambda first, size: jax.tree.map(lambda x: x[first : first + size], batch)
        return cls(len(batch.index), cut)

    def placed(self, mesh: Mesh, part: int = 0, parts: int = 1) -> Batch:
        """Return one of `parts` equal parts of the rows, sharded over `data` and `fsdp`.

        Each part contains an equal share of the rows of every device; B must be a multiple of
        `parts` times the number of batch shards.
        """
        shards = batch_shards(mesh)
        shard_rows = self.count // shards  # rows of a shard in all parts together
        part_rows = shard_rows // parts
        sharding = batch_sharding(mesh)
        rows = shards * part_rows
        indices: Any = sharding.addressable_devices_indices_map((rows,))
        shard_of = lambda index: index[0].indices(rows)[0] // part_rows
        local_shards = {shard_of(index) for index in indices.values()}
        local = {i: self.read(i * shard_rows + part * part_rows, part_rows) for i in local_shards}

        def to_global(*leaves: Array) -> jax.Array:
            leaf_of_shard = dict(zip(local, leaves, strict=True))
            shape = (rows, *leaves[0].shape[1:])
            read = lambda index: leaf_of_shard[shard_of(index)]
            return jax.make_array_from_callback(shape, sharding, read)

        return jax.tree.map(to_global, *local.values())


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield the rows of a batch, `size` at a time; the last part may have fewer."""
    for first in range(0, len(batch.index), size):
        yield jax.tree.map(operator.itemgetter(slice(first, first + size)), batch)


def spread(batch: Batch, mesh: Mesh) -> Batch:
    """Return the rows sharded over a mesh; the last row is repeated to fill every device."""
    size, shards = len(batch.index), batch_shards(mesh)
    chosen = np.minimum(np.arange(-(-size // shards) * shards), size - 1)
    return Rows.of(jax.tree.map(lambda x: np.asarray(x)[chosen], batch)).placed(mesh)
