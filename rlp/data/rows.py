"""The rows of a step, each read where it is needed.

A batch is one global array over all devices of all hosts; a host reads only the rows of its own
devices. Which rows those are follows from the mesh alone, so the documents of a step, and their
order, are the same for any number of hosts.
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
    """B rows that can be read in part.

    Attributes:
      count: B.
      read: `read(first, size)` gives `size` rows from `first` on, in numpy.
    """

    count: int
    read: Callable[[int, int], Batch]

    @classmethod
    def of(cls, batch: Batch) -> "Rows":
        """The rows of a batch that every host has whole."""
        cut = lambda first, size: jax.tree.map(lambda x: x[first : first + size], batch)
        return cls(len(batch.index), cut)

    def placed(self, mesh: Mesh, part: int = 0, parts: int = 1) -> Batch:
        """One of `parts` equal parts of the rows, split over `data` and `fsdp`.

        Each part has its share of the rows of every device; `parts` times the devices that split
        rows divide B.
        """
        shards = batch_shards(mesh)
        here = self.count // shards  # rows of a shard in all parts together
        each = here // parts
        sharding = batch_sharding(mesh)
        rows = shards * each
        places: Any = sharding.addressable_devices_indices_map((rows,))
        shard = lambda place: place[0].indices(rows)[0] // each
        mine = {shard(place) for place in places.values()}
        pieces = {i: self.read(i * here + part * each, each) for i in mine}

        def whole(*leaves: Array) -> jax.Array:
            own = dict(zip(pieces, leaves, strict=True))
            shape = (rows, *leaves[0].shape[1:])
            return jax.make_array_from_callback(shape, sharding, lambda place: own[shard(place)])

        return jax.tree.map(whole, *pieces.values())


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """The rows of a batch, `size` at a time; the last part may have fewer."""
    for first in range(0, len(batch.index), size):
        yield jax.tree.map(operator.itemgetter(slice(first, first + size)), batch)


def spread(batch: Batch, mesh: Mesh) -> Batch:
    """The rows on a mesh; the last one is repeated until every device has as many."""
    size, shards = len(batch.index), batch_shards(mesh)
    chosen = np.minimum(np.arange(-(-size // shards) * shards), size - 1)
    return Rows.of(jax.tree.map(lambda x: np.asarray(x)[chosen], batch)).placed(mesh)
