"""This project's attention and that of `jax.nn`, as contenders on one workload."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import workload
from benchmarks.attention.timing import Jitted
from benchmarks.attention.workload import Arrays, AttentionSizes, NumpyCoordinates
from models.attention import attention, find_worklists
from models.mask import Coordinates, Keys, visible

UPDATE = ("forward", "backward", "whole")
OURS = "models.attention"  # prefix of the names of this project's implementations
DEFAULT = "default"  # the implementation that `attention` selects by itself


def on_device(sizes: AttentionSizes, arrays: Arrays) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return the inputs and the cotangent of the output, in the dtype of the workload."""
    put = {name: jnp.asarray(x, jnp.dtype(sizes.dtype)) for name, x in arrays.items()}
    cotangent = put.pop("cotangent")
    return put, cotangent


def coordinates(at: NumpyCoordinates) -> Coordinates:
    """Return coordinates as jax arrays."""
    return Coordinates(**{name: jnp.asarray(x) for name, x in vars(at).items()})


def product(sizes: AttentionSizes, implementation: str) -> Jitted:
    """Return `models.attention.attention` with the named implementation as a contender.

    Its work lists are computed before the timing starts, because a network computes them once for
    all layers.
    """
    named = None if implementation == DEFAULT else implementation

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, cotangent = on_device(sizes, workload.arrays(sizes, decode))
        at = [coordinates(workload.query_coordinates(sizes, decode))]
        at.append(coordinates(workload.trunk_coordinates(sizes)))
        if sizes.forks:
            at.append(coordinates(workload.branch_coordinates(sizes, decode)))

        @jax.jit
        def find(query: Coordinates, trunk: Coordinates, branch: Coordinates | None = None) -> Any:
            heads, kv_heads = sizes.heads, sizes.kv_heads
            head_dim, dtype = sizes.head_dim, x["query"].dtype
            return find_worklists(
                query, trunk, branch, heads, kv_heads, head_dim, dtype, implementation=named
            )

        return x, (at, find(*at)), cotangent

    return Jitted(
        f"{OURS} {implementation}",
        product_attention(named),
        inputs,
        lambda step: sizes.pairs(step == "decode"),
        ours=True,
    )


def product_attention(implementation: str | None) -> Callable[[Any, Any], jax.Array]:
    """Return a function from (arrays, (coordinates, work lists)) to the attention output, by an
    implementation of this project."""

    def attend(x: dict[str, jax.Array], context: tuple[list[Coordinates], Any]) -> jax.Array:
        (query_at, trunk_at, *branch_at), worklists = context
        return attention(
            x["query"],
            query_at,
            Keys(x["key"], x["value"], trunk_at),
            Keys(x["own_key"], x["own_value"], branch_at[0]) if branch_at else None,
            in_order=not branch_at,
            implementation=implementation,
            worklists=worklists,
        )

    return attend


def dense(sizes: AttentionSizes, implementation: str) -> Jitted:
    """Return `jax.nn.dot_product_attention` on rows of trunk and branches, with a dense mask."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, cotangent = on_device(sizes, workload.packed(workload.arrays(sizes, decode)))
        query, key = map(coordinates, workload.packed_coordinates(sizes, decode))
        return x, jax.jit(visible)(query, key)[:, None], cotangent

    def attend(x: dict[str, jax.Array], mask: jax.Array) -> jax.Array:
        return _dot_product(x, implementation, mask=mask)

    return Jitted(
        f"jax.nn {implementation}, dense mask",
        attend,
        inputs,
        lambda step: sizes.pairs(step == "decode"),
    )


def causal(sizes: AttentionSizes, implementation: str) -> Jitted:
    """Return `jax.nn.dot_product_attention` on a causal trunk with equal useful FLOPs."""
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
    """Return `jax.nn.dot_product_attention` for decoding, with a copy of the trunk per branch.

    The copies are made before the timing starts.
    """

    @functools.cache
    def inputs(decode: bool) -> tuple:
        arrays = workload.arrays(sizes, decode)
        rows = lambda x: x.reshape(-1, *x.shape[2:])

        def keys(name: str) -> np.ndarray:
            branch = np.moveaxis(arrays[f"own_{name}"], 1, 3)  # [B, N, W, kv, d]
            trunk = np.repeat(np.moveaxis(arrays[name], 1, 2)[:, None], sizes.branches, axis=1)
            return rows(np.concatenate([trunk, branch], axis=2))

        whole = {name: rows(arrays[name]) for name in ("query", "cotangent")}
        x, cotangent = on_device(sizes, whole | {name: keys(name) for name in ("key", "value")})
        query = coordinates(workload.query_coordinates(sizes, decode))
        trunk_at = coordinates(workload.trunk_coordinates(sizes))
        branch_at = coordinates(workload.branch_coordinates(sizes, decode))
        spread = lambda at: jnp.repeat(at[:, None], sizes.branches, axis=1)
        key = jax.tree.map(
            lambda a, b: jnp.concatenate([spread(a), b], axis=2), trunk_at, branch_at
        )
        return x, rows(visible(query, key))[:, None], cotangent

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
    """Return the function `Jitted.inputs` for a causal trunk."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, cotangent = on_device(trunk, workload.packed(workload.arrays(trunk, decode)))
        return x, None, cotangent

    return inputs


def _dot_product(x: dict[str, jax.Array], implementation: Any, **mask: Any) -> jax.Array:
    return jax.nn.dot_product_attention(
        x["query"], x["key"], x["value"], implementation=implementation, **mask
    )
