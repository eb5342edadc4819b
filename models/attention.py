"""Attention over documents and their branches: one entry point, named implementations.

The mask follows from four integers per token (`models.mask`); no implementation takes a dense mask.
Queries come in N groups (branches). All groups see the `trunk` keys of their row, which are never
copied per group; group n also sees the `branch` keys of index n. A packed row without branches is
N = 1 without branch keys.
"""

from typing import Any

import jax
import jax.numpy as jnp

from models.attention_kernels import (
    PLATFORMS,
    kernel_attention,
    kernel_worklists,
    kernels_for,
    why_unavailable,
)
from models.attention_xla import xla_attention
from models.backend import target
from models.mask import HIDDEN_SCORE, Coordinates, Keys, Window, visible

IMPLEMENTATIONS = ("reference", "xla", *PLATFORMS)


def attention(
    q: jax.Array,
    at: Coordinates,
    trunk: Keys,
    branch: Keys | None = None,
    *,
    scale: float | None = None,
    window: Window = None,
    in_order: bool = False,
    implementation: str | None = None,
    worklists: Any = None,
) -> jax.Array:
    """Softmax attention of N groups of queries over trunk and branch keys, under one softmax.

    Args:
      q: queries [B, N, Q, heads, head_dim], before scaling.
      at: coordinates of the queries, [B, N, Q].
      trunk: the trunk's keys and values, [B, kv_heads, S, head_dim] with coordinates [B, S], the
        tokens of a document in order.
      branch: keys and values of each group, [B, kv_heads, N, W, head_dim] with coordinates [B, N,
        W], or None. A group with branch keys is one branch. `trunk` and `branch` may both be caches
        of all layers, which kernels read in place (Hopper kernels copy the layer first); then
        kernels have no gradient.
      scale: factor of the scores; None means 1 / sqrt(head_dim).
      window: number of tokens that a query sees, itself included; may be a traced int32 scalar.
      in_order: the queries are the tokens of the trunk keys, as one group and in the same order,
        and no token sees a later one of its row. An implementation may then skip those pairs.
      implementation: a name of `IMPLEMENTATIONS`; None selects the best one for the backend.
      worklists: from `find_worklists` with the same coordinates, window and implementation; None
        computes them here.

    Returns:
      The output [B, N, Q, heads, head_dim] in the dtype of q. Softmax is computed in float32. A
      query that sees no key (padding) gets a finite value without meaning.

    Raises:
      ValueError: If the named implementation does not exist or is not available.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    name = choose_implementation(implementation, q.shape[-1], q.dtype)
    if name not in PLATFORMS:
        run = xla_attention if name == "xla" else reference_attention
        branch = branch and branch.of_layer()
        return run(q, at, trunk.of_layer(), branch, scale, window, in_order)
    if worklists is None:
        branch_at = None if branch is None else branch.at
        sizes = q.shape[3], trunk.key.shape[-3], q.shape[4], q.dtype
        worklists = find_worklists(
            at, trunk.at, branch_at, *sizes, window=window, implementation=name
        )
    kernels = kernels_for(name, q.shape[-1], q.dtype, _decoding(at, branch))
    return kernel_attention(kernels, worklists, q, trunk, branch, scale)


def find_worklists(
    at: Coordinates,
    trunk_at: Coordinates,
    branch_at: Coordinates | None,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: Any,
    *,
    window: Window = None,
    implementation: str | None = None,
) -> Any:
    """Compute what an implementation derives from coordinates alone, once for many layers.

    Args:
      at: coordinates of the queries, [B, N, Q].
      trunk_at: coordinates of the trunk's keys, [B, S].
      branch_at: coordinates of each group's keys, [B, N, W], or None.
      heads: number of query heads.
      kv_heads: number of key and value heads.
      head_dim: size of a head.
      dtype: dtype of queries, keys and values.
      window: as in `attention`.
      implementation: as in `attention`.

    Returns:
      A pytree for `attention(worklists=…)`; None if the implementation does not need one.

    Raises:
      ValueError: As `attention`.
    """
    name = choose_implementation(implementation, head_dim, dtype)
    if name not in PLATFORMS:
        return None
    kernels = kernels_for(name, head_dim, dtype, _decoding(at, branch_at))
    return kernel_worklists(kernels, at, trunk_at, branch_at, window, heads, kv_heads)


def _decoding(at: Coordinates, branch: object) -> bool:
    """Return whether the queries are one token of each branch."""
    return branch is not None and at.segment.shape[2] == 1


BEST = {"tpu": "pallas_tpu", "gpu": "pallas_gpu", "cuda": "pallas_gpu"}


def choose_implementation(name: str | None, head_dim: int, dtype: Any) -> str:
    """Return the implementation `name`, or by default the best for the platform that is traced for.

    Raises:
      ValueError: If the named implementation does not exist or is not available.
    """
    if not name:
        best = BEST.get(target(), "xla")
        return "xla" if best in PLATFORMS and why_unavailable(best, head_dim, dtype) else best
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"model.attention={name!r} is not an implementation; use one of "
            f"{sorted(IMPLEMENTATIONS)}, or leave it empty for the default"
        )
    if name in PLATFORMS and (reason := why_unavailable(name, head_dim, dtype)):
        raise ValueError(
            f"model.attention={name!r} is not available: {reason}; leave it empty for the default"
        )
    return name


def reference_attention(
    q: jax.Array,
    at: Coordinates,
    trunk: Keys,
    branch: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    """Attention with a dense mask over the whole row, for tests: clear, not fast.

    Arguments and result are those of `attention`.
    """
    head_dim = q.shape[-1]
    row = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # [B, N, W, …] -> [B, N·W, …]
    heads = lambda x: x.reshape(*x.shape[:2], -1, head_dim)  # [B, kv, N, W, …] -> [B, kv, N·W, …]
    key, value, key_at = trunk.key, trunk.value, trunk.at
    if branch is not None:
        join = lambda a, b, axis: jnp.concatenate([a, b], axis=axis)
        key, value = join(key, heads(branch.key), 2), join(value, heads(branch.value), 2)
        key_at = jax.tree.map(lambda a, b: join(a, row(b), 1), key_at, branch.at)
    repeat = q.shape[3] // key.shape[1]
    key = jnp.repeat(key, repeat, axis=1).astype(jnp.float32)
    value = jnp.repeat(value, repeat, axis=1).astype(jnp.float32)
    mask = visible(jax.tree.map(row, at), key_at, window)  # [B, N·Q, S + N·W]
    scores = jnp.einsum("bqhd,bhkd->bhqk", row(q).astype(jnp.float32), key) * scale
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, HIDDEN_SCORE), axis=-1)
    return jnp.einsum("bhqk,bhkd->bqhd", weights, value).reshape(q.shape).astype(q.dtype)
