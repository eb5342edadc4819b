"""The product's attention and what JAX offers beside it, as contenders on one workload."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import workload
from benchmarks.attention.timing import Jitted
from benchmarks.attention.workload import Arrays, AttentionSizes, Places
from models.attention import attention, find_worklists
from models.mask import Coordinates, Keys, visible

UPDATE = ("forward", "backward", "whole")
OURS = "models.attention"  # what names of the product begin with
DEFAULT = "default"  # what `attention` picks where no implementation is named


def on_device(sizes: AttentionSizes, found: Arrays) -> tuple[dict[str, jax.Array], jax.Array]:
    """Inputs and the cotangent of a result, in the workload's dtype."""
    put = {name: jnp.asarray(x, jnp.dtype(sizes.dtype)) for name, x in found.items()}
    slope = put.pop("slope")
    return put, slope


def coordinates(at: Places) -> Coordinates:
    """As the product takes them."""
    return Coordinates(**{name: jnp.asarray(x) for name, x in vars(at).items()})


def product(sizes: AttentionSizes, implementation: str) -> Jitted:
    """`models.attention.attention` with the implementation of this name, or the default one.

    What it finds out from coordinates alone is made outside of the clock: a network does that once
    for all its layers.
    """
    named = None if implementation == DEFAULT else implementation

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, slope = on_device(sizes, workload.arrays(sizes, decode))
        at = [coordinates(workload.query_places(sizes, decode))]
        at.append(coordinates(workload.trunk_places(sizes)))
        if sizes.forks:
            at.append(coordinates(workload.branch_places(sizes, decode)))

        @jax.jit
        def find(query: Coordinates, trunk: Coordinates, own: Coordinates | None = None) -> Any:
            heads, kv_heads = sizes.heads, sizes.kv_heads
            head_dim, dtype = sizes.head_dim, x["query"].dtype
            return find_worklists(
                query, trunk, own, heads, kv_heads, head_dim, dtype, implementation=named
            )

        return x, (at, find(*at)), slope

    return Jitted(
        f"{OURS} {implementation}",
        product_attention(named),
        inputs,
        lambda step: sizes.pairs(step == "decode"),
        ours=True,
    )


def product_attention(implementation: str | None) -> Callable[[Any, Any], jax.Array]:
    """(arrays, coordinates and their worklists) to the mixed values, by an implementation of the
    product."""

    def attend(x: dict[str, jax.Array], places: tuple[list[Coordinates], Any]) -> jax.Array:
        (query_at, trunk_at, *own_at), worklists = places
        return attention(
            x["query"],
            query_at,
            Keys(x["key"], x["value"], trunk_at),
            Keys(x["own_key"], x["own_value"], own_at[0]) if own_at else None,
            in_order=not own_at,
            implementation=implementation,
            worklists=worklists,
        )

    return attend


def dense(sizes: AttentionSizes, implementation: str) -> Jitted:
    """`jax.nn.dot_product_attention` on a row of trunk and branches, with a dense mask."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, slope = on_device(sizes, workload.packed(workload.arrays(sizes, decode)))
        query, key = map(coordinates, workload.packed_places(sizes, decode))
        return x, jax.jit(visible)(query, key)[:, None], slope

    def attend(x: dict[str, jax.Array], mask: jax.Array) -> jax.Array:
        return _dot_product(x, implementation, mask=mask)

    return Jitted(
        f"jax.nn {implementation}, dense mask",
        attend,
        inputs,
        lambda step: sizes.pairs(step == "decode"),
    )


def causal(sizes: AttentionSizes, implementation: str) -> Jitted:
    """The same on a causal trunk, at equal useful FLOPs."""
    trunk = workload.causal(sizes)

    def attend(x: dict[str, jax.Array], _: None) -> jax.Array:
        return _dot_product(x, implementation, is_causal=True)

    return Jitted(
        f"jax.nn {implementation}, causal T={trunk.trunk}",
        attend,
        causal_inputs(trunk),
        lambda step: trunk.pairs(decode=False),
        passes=UPDATE,
        comparable=not sizes.forks,
    )


def copies(sizes: AttentionSizes, implementation: str) -> Jitted:
    """The same with a copy of the trunk for every branch, made outside of the clock; decode."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        found = workload.arrays(sizes, decode)
        rows = lambda x: x.reshape(-1, *x.shape[2:])

        def keys(name: str) -> np.ndarray:
            own = np.moveaxis(found[f"own_{name}"], 1, 3)  # [B, N, W, kv, d]
            trunk = np.repeat(np.moveaxis(found[name], 1, 2)[:, None], sizes.branches, axis=1)
            return rows(np.concatenate([trunk, own], axis=2))

        whole = {name: rows(found[name]) for name in ("query", "slope")}
        x, slope = on_device(sizes, whole | {name: keys(name) for name in ("key", "value")})
        query = coordinates(workload.query_places(sizes, decode))
        trunk_at = coordinates(workload.trunk_places(sizes))
        own_at = coordinates(workload.branch_places(sizes, decode))
        spread = lambda at: jnp.repeat(at[:, None], sizes.branches, axis=1)
        key = jax.tree.map(lambda a, b: jnp.concatenate([spread(a), b], axis=2), trunk_at, own_at)
        return x, rows(visible(query, key))[:, None], slope

    def attend(x: dict[str, jax.Array], mask: jax.Array) -> jax.Array:
        return _dot_product(x, implementation, mask=mask)

    return Jitted(
        f"jax.nn {implementation}, a copy of the trunk per branch",
        attend,
        inputs,
        lambda step: sizes.pairs(decode=True),
        passes=("decode",),
    )


def causal_inputs(trunk: AttentionSizes) -> Callable[[bool], tuple]:
    """Of a causal trunk, for `Jitted`."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, slope = on_device(trunk, workload.packed(workload.arrays(trunk, decode)))
        return x, None, slope

    return inputs


def _dot_product(x: dict[str, jax.Array], implementation: Any, **mask: Any) -> jax.Array:
    return jax.nn.dot_product_attention(
        x["query"], x["key"], x["value"], implementation=implementation, **mask
    )
