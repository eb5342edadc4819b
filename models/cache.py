"""The caches of all layers: how they begin, grow, move and weigh, whatever the layers keep.

A kind's caches are stacked on a leading axis, or a list with one for each of its layers, as the
parameters of the network are (`models.transformer.bind`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.backend import choices
from models.config import ModelConfig
from models.layers.protocol import LayerCache, LayerKind
from models.layers.registry import kind_counts
from models.sharding import place


@flax.struct.dataclass
class Cache:
    """What all layers keep of a trunk, or of branches: name of a kind to the caches of its layers.

    Of branches, `slots` tokens of each have room.
    """

    kinds: Mapping[str, Any]
    slots: int = flax.struct.field(pytree_node=False, default=0)


def room(slots: int) -> int:
    """Slots that a branch cache has for so many tokens."""
    return -(-slots // choices().cache_slots) * choices().cache_slots


def begin(config: ModelConfig, trunk: Any, trunk_cache: Cache, branches: Any, slots: int) -> Cache:
    """The cache of `branches` that have run no slot yet.

    Args:
      config: of the network.
      trunk: the rows that they leave.
      trunk_cache: of the trunk.
      branches: [B, N, …].
      slots: tokens of each that it has room for; a few more may fit.
    """
    slots, found = room(slots), {}

    def fresh(kind: LayerKind, arrays: Any) -> Any:
        return kind.begin(config, trunk, LayerCache(arrays), branches, slots)

    for kind, count in _kept(config, 1, 1, 1).items():
        kept = trunk_cache.kinds[kind.name]
        if isinstance(kept, list):
            found[kind.name] = [_placed(fresh(kind, arrays), 0) for arrays in kept]
        else:
            each = jax.vmap(lambda arrays, kind=kind: fresh(kind, arrays), axis_size=count)
            found[kind.name] = _placed(each(kept), 1)
    return Cache(found, slots)


def _kept(config: ModelConfig, *sizes: int) -> dict[LayerKind, int]:
    """Kinds that keep something of branches, one of each name, and how many layers have it."""
    named: dict[str, LayerKind] = {}
    counts: dict[str, int] = {}
    for kind, count in kind_counts(config).items():
        if jax.tree.leaves(kind.branch_cache(config, *sizes)):
            named.setdefault(kind.name, kind)
            counts[kind.name] = counts.get(kind.name, 0) + count
    return {kind: counts[name] for name, kind in named.items()}


def _placed(arrays: Any, lead: int) -> Any:
    return jax.tree.map(lambda x: place(x, *[None] * lead, "rows", "heads"), arrays)


def grown(config: ModelConfig, cache: Cache, slots: int) -> Cache:
    """A branch cache with room for so many tokens, or a few more."""
    slots, found = room(slots), {}

    def pad(x: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        lead = x.ndim - len(shape.shape)
        more = [(0, new - old) for old, new in zip(x.shape[lead:], shape.shape, strict=True)]
        return jnp.pad(x, [(0, 0)] * lead + more)

    for kind in _kept(config, 1, 1, 1):
        kept = cache.kinds[kind.name]
        each = kept if isinstance(kept, list) else [kept]
        lead = 0 if isinstance(kept, list) else 1
        leaf = jax.tree.leaves(each[0])[0].shape[lead:]
        shapes = kind.branch_cache(config, leaf[0], leaf[2], slots)
        larger = [jax.tree.map(pad, arrays, shapes) for arrays in each]
        found[kind.name] = larger if lead == 0 else larger[0]
    return Cache(found, slots)


def map_branches(change: Callable, cache: Cache, *others: Cache) -> Cache:
    """`change(array, axes of rows and branches, …)` on every array of branch caches; `…` are the
    arrays of the others."""
    found = {}
    for name, kept in cache.kinds.items():
        lead = 0 if isinstance(kept, list) else 1
        run = lambda x, *y, lead=lead: change(x, (lead, lead + 2), *y)
        found[name] = jax.tree.map(run, kept, *(other.kinds[name] for other in others))
    return Cache(found, cache.slots)


def trunk_bytes(config: ModelConfig, rows: int, length: int, forks: int) -> dict[LayerKind, int]:
    """Bytes of the trunk caches of all layers of each kind.

    Args:
      config: of the network.
      rows: documents.
      length: tokens of each.
      forks: places of each where branches leave.
    """
    size = lambda kind: _bytes(kind.trunk_cache(config, rows, length, forks))
    return {kind: count * size(kind) for kind, count in kind_counts(config).items()}


def branch_bytes(config: ModelConfig, rows: int, branches: int, slots: int) -> dict[LayerKind, int]:
    """The same of branch caches of exactly so many slots."""
    size = lambda kind: _bytes(kind.branch_cache(config, rows, branches, slots))
    return {kind: count * size(kind) for kind, count in kind_counts(config).items()}


def _bytes(shapes: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
