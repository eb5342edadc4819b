"""Attention by the kernels of `models.kernels`: from documents and branches to rows and blocks.

The queries of all heads that share a head of keys (GQA), of all tokens of all branches, are rows of
that head of keys, so a kernel needs no notion of grouped queries. What a row sees of the trunk and
of its branch are two ranges of positions (`visits.RangeMask`), one for each source of keys. On a
mesh, each device computes its documents and heads, without communication.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.backend import gpu, interpreted, target
from models.kernels.attention import Kernels
from models.kernels.attention import attention as block_attention
from models.kernels.visits import RangeMask
from models.mask import Coordinates, Keys, Window
from models.sharding import on_each_device, shards

GPUS = "gpu", "cuda"
PLATFORMS = {"pallas_tpu": ("tpu",), "pallas_gpu": GPUS, "pallas_hopper": GPUS}
HEAD_DIMS = {"pallas_tpu": (64, 128, 256), "pallas_gpu": (64, 128, 256), "pallas_hopper": (64, 128)}
AMPERE, HOPPER = (8, 0), (9, 0)  # compute capabilities


def why_unavailable(name: str, head_dim: int, dtype: Any) -> str | None:
    """Return why an implementation of `PLATFORMS` cannot be used here, or None if it can."""
    if interpreted() is None and target() not in PLATFORMS[name]:
        needed, actual = ({"cuda": "gpu"}.get(x, x).upper() for x in (PLATFORMS[name][0], target()))
        return f"it needs a {needed}, and this is a {actual}"
    if name == "pallas_gpu" and gpu().capability < AMPERE:
        return "it needs an NVIDIA GPU of the Ampere generation or later"
    if name == "pallas_hopper" and gpu().capability != HOPPER:
        return "it needs an H100 or H200"
    if name == "pallas_hopper" and jnp.dtype(dtype) != jnp.bfloat16:
        return f"it computes in bfloat16 (model.compute_dtype), not {jnp.dtype(dtype).name}"
    if head_dim not in HEAD_DIMS[name]:
        return f"it supports head sizes {', '.join(map(str, HEAD_DIMS[name]))}, not {head_dim}"
    return None


def kernels_for(name: str, head_dim: int, dtype: Any, decoding: bool) -> Kernels:
    """Return the kernels of an implementation, with block sizes for a head size and dtype.

    Args:
      name: a name of `PLATFORMS`.
      head_dim: numbers of a head.
      dtype: of queries, keys and values.
      decoding: the queries are one token of each branch. For those, `pallas_hopper` uses the Triton
        kernels, in which several programs can share a block of queries.
    """
    how = interpreted()
    # Imported on demand, since Pallas with its backends takes a quarter of a second.
    if name == "pallas_tpu":
        from models.kernels.tpu import TPUKernels

        return TPUKernels(interpret=how or False)
    if name == "pallas_hopper" and not decoding:
        from models.kernels.hopper import hopper_kernels

        return hopper_kernels(head_dim, interpret=how or False)
    from models.kernels.triton import triton_kernels

    return triton_kernels(head_dim, jnp.dtype(dtype), gpu(), interpret=how is not None)


def kernel_worklists(
    kernels: Kernels,
    at: Coordinates,
    trunk_at: Coordinates,
    branch_at: Coordinates | None,
    window: Window,
    heads: int,
    kv_heads: int,
) -> Any:
    """Compute the work lists of the kernels, once for all layers with the same window.

    Arguments are those of `attention.find_worklists`.

    Returns:
      A pytree of arrays whose leading axis is devices times parts of a device's batch.
    """

    def run(
        at: Coordinates, trunk_at: Coordinates, branch_at: Coordinates | None, window: Window
    ) -> Any:
        masks = range_masks(at, trunk_at, branch_at, window, heads // kv_heads)
        make = lambda masks: kernels.worklists(masks, kv_heads // shards("kv_heads"))
        return _map_parts(make, kernels.batch_parts(masks), masks)

    rows = ("rows",)
    return on_each_device(run, [rows, rows, rows, ()], rows)(at, trunk_at, branch_at, window)


def kernel_attention(
    kernels: Kernels, worklists: Any, q: jax.Array, trunk: Keys, branch: Keys | None, scale: float
) -> jax.Array:
    """Attention by kernels, with the work lists for the coordinates of these queries and keys.

    The other arguments and the result are those of `attention.attention`.

    Raises:
      ValueError: If one of `trunk` and `branch` is a cache of all layers and the other is not.
    """

    def run(worklists: Any, layer: jax.Array, q: jax.Array, *kv: jax.Array) -> jax.Array:
        batch, groups, length, heads, head_dim = q.shape
        kv_heads = kv[0].shape[2]
        rows = q.reshape(batch, groups * length, kv_heads, -1, head_dim)
        rows = rows.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, -1, head_dim)
        parts = len(jax.tree.leaves(worklists)[0])
        if parts > 1 and len(kv[0]) > 1:
            kv = tuple(x[layer][None] for x in kv)  # in a stack, a part's rows are not contiguous
            layer = jnp.int32(0)
        flat = [x.reshape(-1, kv_heads, math.prod(x.shape[3:-1]), head_dim) for x in kv]
        sources = tuple(zip(flat[::2], flat[1::2], strict=True))
        attend = lambda rows, sources, worklists: block_attention(
            rows, sources, layer * batch, jax.tree.map(lambda x: x[0], worklists), scale, kernels
        )
        out = jnp.concatenate(_map_parts(attend, parts, rows, sources, worklists))
        out = out.reshape(batch, kv_heads, groups * length, -1, head_dim)
        return out.transpose(0, 2, 1, 3, 4).reshape(q.shape)

    all_keys = [keys for keys in (trunk, branch) if keys is not None]
    stacked = trunk.layer is not None
    if any((keys.layer is not None) != stacked for keys in all_keys):
        raise ValueError("trunk and branch keys must both be of one layer, or both of all layers")
    kv = [x if stacked else x[None] for keys in all_keys for x in (keys.key, keys.value)]
    layer = trunk.layer if stacked else jnp.int32(0)
    queries, caches = ("rows", None, None, "heads"), (None, "rows", "kv_heads")
    run = on_each_device(run, [("rows",), (), queries, *[caches] * len(kv)], queries)
    return run(worklists, layer, q, *kv)


def _map_parts(run: Callable, parts: int, *trees: Any) -> Any:
    """Apply `run` to each of `parts` equal parts of the batch; stack the results in front."""
    if parts == 1:
        return jax.tree.map(lambda x: x[None], run(*trees))
    split = lambda x: x.reshape(parts, -1, *x.shape[1:])
    return jax.lax.map(lambda part: run(*part), jax.tree.map(split, trees))


def range_masks(
    at: Coordinates,
    trunk_at: Coordinates,
    branch_at: Coordinates | None,
    window: Window,
    repeat: int,
) -> list[RangeMask]:
    """Return the masks of the query rows over the trunk's keys and over their branch's keys.

    Args:
      at: coordinates of the queries, [B, N, Q].
      trunk_at: of the trunk's keys, [B, S].
      branch_at: of the branches' keys, [B, N, W], or None.
      window: as in `attention.attention`.
      repeat: query heads that share a head of keys, or rows of a token.
    """
    trunk = _trunk_mask(at, trunk_at, window, repeat)
    return [trunk] if branch_at is None else [trunk, _branch_mask(at, branch_at, window, repeat)]


def _trunk_mask(at: Coordinates, keys: Coordinates, window: Window, repeat: int) -> RangeMask:
    """Mask of queries [B, N, Q] over the trunk's keys [B, S]: a branch sees positions < fork."""
    last = jnp.where(at.branch == 0, at.position, jnp.minimum(at.position, at.fork - 1))
    return RangeMask(
        q_segment=_rows(at.segment, repeat),
        low=_rows(_first_visible(at, window), repeat),
        high=_rows(last, repeat),
        kv_segment=jnp.where(keys.branch == 0, keys.segment, 0),
        kv_position=keys.position,
        groups=1,
    )


def _branch_mask(at: Coordinates, keys: Coordinates, window: Window, repeat: int) -> RangeMask:
    """Mask of queries [B, N, Q] over the keys of their branches [B, N, W]; the segment id of a
    branch is its number, and dead slots have 0."""
    groups = at.segment.shape[1]
    number = jnp.arange(1, groups + 1, dtype=jnp.int32)[None, :, None]
    live = lambda segment: jnp.where(segment > 0, number, 0)
    flat = lambda x: x.reshape(x.shape[0], -1)
    return RangeMask(
        q_segment=_rows(live(at.segment), repeat),
        low=_rows(_first_visible(at, window), repeat),
        high=_rows(at.position, repeat),
        kv_segment=flat(live(keys.segment)),
        kv_position=flat(keys.position),
        groups=groups,
    )


def _first_visible(at: Coordinates, window: Window) -> jax.Array:
    """Return the first position that each query sees."""
    start = jnp.zeros_like(at.position)
    return start if window is None else jnp.maximum(start, at.position - window + 1)


def _rows(x: jax.Array, repeat: int) -> jax.Array:
    """Repeat each token for the heads that share keys: [B, N, Q] to [B, N · Q · repeat]."""
    return jnp.repeat(x.reshape(x.shape[0], -1), repeat, axis=1)
