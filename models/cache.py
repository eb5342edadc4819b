"""The caches of all layers: creating, growing, transforming and measuring them.

This module does not depend on what the kinds of layers cache. The caches of a kind are stacked on a
leading axis, or a list with one cache for each layer, like the parameters of the network
(`models.transformer.bind`).
"""

import functools
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
from models.sharding import constrain


@flax.struct.dataclass
class Cache:
    """The caches of all layers for a trunk or for branches.

    Attributes:
      kinds: name of a kind of layer to the caches of its layers.
      slots: capacity of a branch cache, in tokens of each branch.
    """

    kinds: Mapping[str, Any]
    slots: int = flax.struct.field(pytree_node=False, default=0)


def room(slots: int) -> int:
    """Return the capacity of a branch cache for `slots` tokens: rounded up to `cache_slots`."""
    return -(-slots // choices().cache_slots) * choices().cache_slots


def begin(config: ModelConfig, trunk: Any, trunk_cache: Cache, branches: Any, slots: int) -> Cache:
    """Create the cache of branches that have not run any slot yet.

    Args:
      config: config of the network.
      trunk: the rows that the branches leave.
      trunk_cache: cache of the trunk.
      branches: the branches, [B, N, …].
      slots: required capacity in tokens of each branch; it may be rounded up.
    """
    slots, caches = room(slots), {}

    def fresh(kind: LayerKind, arrays: Any) -> Any:
        return kind.begin(config, trunk, LayerCache(arrays), branches, slots)

    for kind, count in _cached_kinds(config, 1, 1, 1).items():
        of_trunk = trunk_cache.kinds[kind.name]
        if isinstance(of_trunk, list):
            caches[kind.name] = [_placed(fresh(kind, arrays), 0) for arrays in of_trunk]
        else:
            fresh_stack = jax.vmap(lambda arrays, kind=kind: fresh(kind, arrays), axis_size=count)
            caches[kind.name] = _placed(fresh_stack(of_trunk), 1)
    return Cache(caches, slots)


def _cached_kinds(config: ModelConfig, *sizes: int) -> dict[LayerKind, int]:
    """Return the kinds with a branch cache, one of each name, and the number of their layers."""
    named: dict[str, LayerKind] = {}
    counts: dict[str, int] = {}
    for kind, count in kind_counts(config).items():
        if jax.tree.leaves(kind.branch_cache(config, *sizes)):
            named.setdefault(kind.name, kind)
            counts[kind.name] = counts.get(kind.name, 0) + count
    return {kind: counts[name] for name, kind in named.items()}


def _placed(arrays: Any, lead: int) -> Any:
    return jax.tree.map(lambda x: constrain(x, *[None] * lead, "rows", "heads"), arrays)


def can_join(config: ModelConfig) -> bool:
    """Return whether `joined` supports all kinds of layers of a network."""
    return all(kind.joins for kind in _cached_kinds(config, 1, 1, 1))


def joined(config: ModelConfig, trunk_cache: Cache, branch_cache: Cache) -> Cache:
    """Return the cache of documents that have the tokens of a row and of one of its branches each.

    Args:
      config: config of the network.
      trunk_cache: cache of B rows of T tokens, all of which the branches see.
      branch_cache: cache of N branches of each row, with S slots.

    Returns:
      The trunk cache of B · N rows of T + S tokens.
    """
    caches = {}
    for kind in _cached_kinds(config, 1, 1, 1):
        join = functools.partial(kind.joined, config)
        of_trunk, of_branches = (cache.kinds[kind.name] for cache in (trunk_cache, branch_cache))
        if isinstance(of_trunk, list):
            caches[kind.name] = list(map(join, of_trunk, of_branches))
        else:
            caches[kind.name] = jax.vmap(join)(of_trunk, of_branches)
    return Cache(caches)


def grown(config: ModelConfig, cache: Cache, slots: int) -> Cache:
    """Return a branch cache with capacity for `slots` tokens, padded with zeros."""
    slots = room(slots)

    def shapes(kind: LayerKind, leaf: tuple[int, ...]) -> Any:
        return kind.branch_cache(config, leaf[0], leaf[2], slots)

    return _padded(config, cache, shapes, slots)


def lengthened(config: ModelConfig, cache: Cache, length: int) -> Cache:
    """Return the cache of trunks with one fork each with room for `length` tokens, padded with
    zeros."""
    shapes = lambda kind, leaf: kind.trunk_cache(config, leaf[0], length, 1)
    return _padded(config, cache, shapes, cache.slots)


def _padded(config: ModelConfig, cache: Cache, shapes: Callable, slots: int) -> Cache:
    """Return a cache whose arrays have the shapes `shapes(kind, shape of its first array)`."""
    caches = {}

    def pad(x: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        lead = x.ndim - len(shape.shape)
        more = [(0, new - old) for old, new in zip(x.shape[lead:], shape.shape, strict=True)]
        return jnp.pad(x, [(0, 0)] * lead + more)

    for kind in _cached_kinds(config, 1, 1, 1):
        of_kind = cache.kinds[kind.name]
        arrays_list = of_kind if isinstance(of_kind, list) else [of_kind]
        lead = 0 if isinstance(of_kind, list) else 1
        wanted = shapes(kind, jax.tree.leaves(arrays_list[0])[0].shape[lead:])
        larger = [jax.tree.map(pad, arrays, wanted) for arrays in arrays_list]
        caches[kind.name] = larger if lead == 0 else larger[0]
    return Cache(caches, slots)


def map_rows(change: Callable, cache: Cache, *others: Cache) -> Cache:
    """Apply a function to every array of caches.

    Args:
      change: called as `change(array, axes, *arrays of the others)`; `axes` are those of rows and
        of branches (a trunk cache has only the first).
      cache: a cache of branches or of a trunk.
      others: caches of the same structure.
    """
    caches = {}
    for name, of_kind in cache.kinds.items():
        lead = 0 if isinstance(of_kind, list) else 1
        run = lambda x, *y, lead=lead: change(x, (lead, lead + 2), *y)
        caches[name] = jax.tree.map(run, of_kind, *(other.kinds[name] for other in others))
    return Cache(caches, cache.slots)


def unstacked(cache: Cache) -> Cache:
    """Return a cache with a list of the caches of its layers for each kind, instead of stacks."""
    layer = lambda arrays, i: jax.tree.map(lambda x: x[i], arrays)
    count = lambda arrays: len(jax.tree.leaves(arrays)[0])
    lists = {
        name: arrays
        if isinstance(arrays, list)
        else [layer(arrays, i) for i in range(count(arrays))]
        for name, arrays in cache.kinds.items()
    }
    return Cache(lists, cache.slots)


def stacked(cache: Cache) -> Cache:
    """Return a branch cache with a stack of the caches of all layers for each kind, not a list."""
    stack = lambda layers: jax.tree.map(lambda *x: jnp.stack(x), *layers)
    kinds = {name: _placed(stack(layers), 1) for name, layers in cache.kinds.items()}
    return Cache(kinds, cache.slots)


def trunk_bytes(config: ModelConfig, rows: int, length: int, forks: int) -> dict[LayerKind, int]:
    """Return the bytes of the trunk caches of all layers of each kind.

    Args:
      config: config of the network.
      rows: number of documents.
      length: tokens of each document.
      forks: number of forks of each document.
    """
    size = lambda kind: _bytes(kind.trunk_cache(config, rows, length, forks))
    return {kind: count * size(kind) for kind, count in kind_counts(config).items()}


def branch_bytes(config: ModelConfig, rows: int, branches: int, slots: int) -> dict[LayerKind, int]:
    """Return the bytes of the branch caches of all layers of each kind, for exactly `slots`."""
    size = lambda kind: _bytes(kind.branch_cache(config, rows, branches, slots))
    return {kind: count * size(kind) for kind, count in kind_counts(config).items()}


def _bytes(shapes: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
