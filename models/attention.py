"""Attention over documents and their branches: one entry point, named implementations.

Who sees whom is said in `models.mask`, by four integers per token; no implementation takes a dense
mask. Queries come in N groups (branches). All groups see the `shared` keys of their row, which are
never copied per group; group n also sees its `own` keys. A plain packed row is N = 1 with no own
keys.
"""

from typing import Any

import jax
import jax.numpy as jnp

from models.attention_kernels import (
    PLATFORMS,
    kernel_attention,
    kernel_worklists,
    kernels_for,
    refusal,
)
from models.attention_xla import xla_attention
from models.backend import target
from models.mask import HIDDEN_SCORE, Coordinates, Keys, Window, visible

IMPLEMENTATIONS = ("reference", "xla", *PLATFORMS)


def attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None = None,
    *,
    scale: float | None = None,
    window: Window = None,
    in_order: bool = False,
    implementation: str | None = None,
    worklists: Any = None,
) -> jax.Array:
    """Softmax attention of N groups of queries over shared and own keys, under one softmax.

    Args:
      q: queries [B, N, Q, heads, head_dim], not yet scaled.
      at: their coordinates [B, N, Q].
      shared: the trunk's keys, [B, kv_heads, S, head_dim] at [B, S], a document's in order.
      own: keys of each group, [B, kv_heads, N, W, head_dim] at [B, N, W], or None. A group with
        keys of its own is one branch. Both may be caches of all layers, which kernels read where
        they are (Hopper's copy the layer out); then kernels have no gradient.
      scale: what scores are multiplied by; None is 1 / sqrt(head_dim).
      window: tokens that a query sees, itself included; an int32 scalar may be traced.
      in_order: the queries are the tokens of the shared keys, as one group and in the same order,
        and no token sees a later one of its row. Lets an implementation skip those.
      implementation: a name of `IMPLEMENTATIONS`; None picks the best for the backend.
      worklists: from `find_worklists` with the same coordinates, window and implementation; None
        makes them here.

    Returns:
      Mixed values [B, N, Q, heads, head_dim] in the dtype of q. Softmax is in float32. A query that
      sees no key (padding) gets a finite value without meaning.

    Raises:
      ValueError: if the named implementation does not exist or cannot serve.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    name = chosen(implementation, q.shape[-1], q.dtype)
    if name not in PLATFORMS:
        plain = xla_attention if name == "xla" else reference_attention
        own = own and own.of_layer()
        return plain(q, at, shared.of_layer(), own, scale, window, in_order)
    if worklists is None:
        own_at = None if own is None else own.at
        sizes = q.shape[3], shared.key.shape[-3], q.shape[4], q.dtype
        worklists = find_worklists(
            at, shared.at, own_at, *sizes, window=window, implementation=name
        )
    kernels = kernels_for(name, q.shape[-1], q.dtype, _decoding(at, own))
    return kernel_attention(kernels, worklists, q, shared, own, scale)


def find_worklists(
    at: Coordinates,
    shared: Coordinates,
    own: Coordinates | None,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: Any,
    *,
    window: Window = None,
    implementation: str | None = None,
) -> Any:
    """What an implementation finds out from coordinates alone: once, for attention in many layers.

    Args:
      at: coordinates of the queries, [B, N, Q].
      shared: of the trunk's keys, [B, S].
      own: of each group's keys, [B, N, W], or None.
      heads: of queries.
      kv_heads: of keys.
      head_dim: of both.
      dtype: of both.
      window: as of `attention`.
      implementation: as of `attention`.

    Returns:
      A pytree for `attention(worklists=…)`; None where there is nothing to find out.
    """
    name = chosen(implementation, head_dim, dtype)
    if name not in PLATFORMS:
        return None
    kernels = kernels_for(name, head_dim, dtype, _decoding(at, own))
    return kernel_worklists(kernels, at, shared, own, window, heads, kv_heads)


def _decoding(at: Coordinates, own: object) -> bool:
    """Whether queries are one token of each branch."""
    return own is not None and at.segment.shape[2] == 1


BEST = {"tpu": "pallas_tpu", "gpu": "pallas_gpu", "cuda": "pallas_gpu"}


def chosen(name: str | None, head_dim: int, dtype: Any) -> str:
    """The implementation to use: the one named, or the best for what is traced for.

    Raises:
      ValueError: the one named does not exist, or cannot serve.
    """
    if not name:
        best = BEST.get(target(), "xla")
        return "xla" if best in PLATFORMS and refusal(best, head_dim, dtype) else best
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"model.attention={name!r} is not an implementation; use one of "
            f"{sorted(IMPLEMENTATIONS)} or leave it empty"
        )
    if name in PLATFORMS and (reason := refusal(name, head_dim, dtype)):
        raise ValueError(f"model.attention={name!r} cannot serve: {reason}; leave it empty")
    return name


def reference_attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    """The rule spelled out with a dense mask over the whole row. For tests: clear, not fast."""
    head_dim = q.shape[-1]
    row = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # [B, N, W, …] -> [B, N·W, …]
    heads = lambda x: x.reshape(*x.shape[:2], -1, head_dim)  # [B, kv, N, W, …] -> [B, kv, N·W, …]
    key, value, key_at = shared.key, shared.value, shared.at
    if own is not None:
        join = lambda a, b, axis: jnp.concatenate([a, b], axis=axis)
        key, value = join(key, heads(own.key), 2), join(value, heads(own.value), 2)
        key_at = jax.tree.map(lambda a, b: join(a, row(b), 1), key_at, own.at)
    repeat = q.shape[3] // key.shape[1]
    key = jnp.repeat(key, repeat, axis=1).astype(jnp.float32)
    value = jnp.repeat(value, repeat, axis=1).astype(jnp.float32)
    mask = visible(jax.tree.map(row, at), key_at, window)  # [B, N·Q, S + N·W]
    scores = jnp.einsum("bqhd,bhkd->bhqk", row(q).astype(jnp.float32), key) * scale
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, HIDDEN_SCORE), axis=-1)
    return jnp.einsum("bhqk,bhkd->bqhd", weights, value).reshape(q.shape).astype(q.dtype)
