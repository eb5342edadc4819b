"""Attention by the kernels of `models.kernels`: from documents and branches to rows and blocks.

The heads that share a head of keys, and all tokens of all branches, are rows of queries of that
head, so a kernel knows nothing of grouped queries. What a row sees of the trunk and of its own
branch are two runs of positions (`visits.Sight`). On a mesh, each device computes its documents and
its heads; nothing is exchanged.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.backend import gpu, interpreted, target
from models.kernels.attention import Kernels
from models.kernels.attention import attention as over_blocks
from models.kernels.hopper import sized
from models.kernels.tpu import TPUKernels
from models.kernels.triton import tiled
from models.kernels.visits import Sight
from models.mask import Coordinates, Keys, Window
from models.sharding import on_each_device, shards

GPUS = "gpu", "cuda"
PLATFORMS = {"pallas_tpu": ("tpu",), "pallas_gpu": GPUS, "pallas_hopper": GPUS}
HEAD_DIMS = {"pallas_tpu": (64, 128, 256), "pallas_gpu": (64, 128, 256), "pallas_hopper": (64, 128)}
AMPERE, HOPPER = (8, 0), (9, 0)  # their compute capabilities


def refusal(name: str, head_dim: int, dtype: Any) -> str | None:
    """Why an implementation of `PLATFORMS` cannot serve, or None."""
    if interpreted() is None and target() not in PLATFORMS[name]:
        names = [{"cuda": "gpu"}.get(x, x).upper() for x in (PLATFORMS[name][0], target())]
        return f"it needs a {names[0]}, and this is a {names[1]}"
    if name == "pallas_gpu" and gpu().capability < AMPERE:
        return "it needs an NVIDIA GPU of Ampere's generation or a later one"
    if name == "pallas_hopper" and gpu().capability != HOPPER:
        return "it needs an H100 or H200"
    if name == "pallas_hopper" and jnp.dtype(dtype) != jnp.bfloat16:
        return f"it computes in bfloat16 (model.compute_dtype), not {jnp.dtype(dtype).name}"
    if head_dim not in HEAD_DIMS[name]:
        return f"it has head sizes {', '.join(map(str, HEAD_DIMS[name]))}, not {head_dim}"
    return None


def kernels_for(name: str, head_dim: int, dtype: Any, decoding: bool) -> Kernels:
    """The kernels of an implementation, sized for vectors of that many numbers.

    Args:
      decoding: queries are one token of each branch. Hopper's kernels leave those to the GPU's, of
        which several programs share a block of queries.
    """
    how = interpreted()
    if name == "pallas_tpu":
        return TPUKernels(interpret=how or False)
    if name == "pallas_hopper" and not decoding:
        return sized(head_dim, interpret=how or False)
    return tiled(head_dim, jnp.dtype(dtype), gpu(), interpret=how is not None)


def kernel_worklists(
    kernels: Kernels,
    at: Coordinates,
    shared: Coordinates,
    own: Coordinates | None,
    window: Window,
    heads: int,
    kv_heads: int,
) -> Any:
    """What kernels find out about who sees whom, once for all layers with the same window.

    Returns:
      A pytree of arrays with an axis of devices, and parts of their batch, in front.
    """

    def run(at: Coordinates, shared: Coordinates, own: Coordinates | None, window: Window) -> Any:
        sights = sights_of(at, shared, own, window, heads // kv_heads)
        make = lambda sights: kernels.worklists(sights, kv_heads // shards("kv_heads"))
        return _each_part(make, kernels.parts(sights), sights)

    rows = ("rows",)
    return on_each_device(run, [rows, rows, rows, ()], rows)(at, shared, own, window)


def kernel_attention(
    kernels: Kernels, worklists: Any, q: jax.Array, shared: Keys, own: Keys | None, scale: float
) -> jax.Array:
    """Attention with the worklists of the coordinates of these queries and keys; as `attention`.

    Raises:
      ValueError: one kind of keys is of all layers, the other is not.
    """

    def run(worklists: Any, layer: jax.Array, q: jax.Array, *each: jax.Array) -> jax.Array:
        batch, groups, length, heads, head_dim = q.shape
        kv_heads = each[0].shape[2]
        rows = q.reshape(batch, groups * length, kv_heads, -1, head_dim)
        rows = rows.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, -1, head_dim)
        parts = len(jax.tree.leaves(worklists)[0])
        if parts > 1 and len(each[0]) > 1:
            each = tuple(x[layer][None] for x in each)  # a part's rows of a stack are not together
            layer = jnp.int32(0)
        flat = [x.reshape(-1, kv_heads, math.prod(x.shape[3:-1]), head_dim) for x in each]
        sources = tuple(zip(flat[::2], flat[1::2], strict=True))
        attend = lambda rows, sources, worklists: over_blocks(
            rows, sources, layer * batch, jax.tree.map(lambda x: x[0], worklists), scale, kernels
        )
        mixed = jnp.concatenate(_each_part(attend, parts, rows, sources, worklists))
        mixed = mixed.reshape(batch, kv_heads, groups * length, -1, head_dim)
        return mixed.transpose(0, 2, 1, 3, 4).reshape(q.shape)

    both = [keys for keys in (shared, own) if keys is not None]
    stacked = shared.layer is not None
    if any((keys.layer is not None) != stacked for keys in both):
        raise ValueError("shared and own keys are both of one layer, or both of all layers")
    each = [x if stacked else x[None] for keys in both for x in (keys.key, keys.value)]
    layer = shared.layer if stacked else jnp.int32(0)
    queries, caches = ("rows", None, None, "heads"), (None, "rows", "kv_heads")
    run = on_each_device(run, [("rows",), (), queries, *[caches] * len(each)], queries)
    return run(worklists, layer, q, *each)


def _each_part(run: Callable, parts: int, *trees: Any) -> Any:
    """Results of `run` on each of so many parts of the batch, stacked in front."""
    if parts == 1:
        return jax.tree.map(lambda x: x[None], run(*trees))
    cut = lambda x: x.reshape(parts, -1, *x.shape[1:])
    return jax.lax.map(lambda part: run(*part), jax.tree.map(cut, trees))


def sights_of(
    at: Coordinates, shared: Coordinates, own: Coordinates | None, window: Window, repeat: int
) -> list[Sight]:
    """What the rows of queries, `repeat` for each token, see of the trunk and of their branch."""
    trunk = _of_trunk(at, shared, window, repeat)
    return [trunk] if own is None else [trunk, _of_branches(at, own, window, repeat)]


def _of_trunk(at: Coordinates, keys: Coordinates, window: Window, repeat: int) -> Sight:
    """What queries at [B, N, Q] see of the trunk's keys at [B, S]."""
    last = jnp.where(at.branch == 0, at.position, jnp.minimum(at.position, at.fork - 1))
    return Sight(
        query_class=_rows(at.segment, repeat),
        low=_rows(_first(at, window), repeat),
        high=_rows(last, repeat),
        key_class=jnp.where(keys.branch == 0, keys.segment, 0),
        key_position=keys.position,
        groups=1,
    )


def _of_branches(at: Coordinates, keys: Coordinates, window: Window, repeat: int) -> Sight:
    """What queries at [B, N, Q] see of their branches' keys at [B, N, W]."""
    groups = at.segment.shape[1]
    number = jnp.arange(1, groups + 1, dtype=jnp.int32)[None, :, None]
    live = lambda segment: jnp.where(segment > 0, number, 0)
    flat = lambda x: x.reshape(x.shape[0], -1)
    return Sight(
        query_class=_rows(live(at.segment), repeat),
        low=_rows(_first(at, window), repeat),
        high=_rows(at.position, repeat),
        key_class=flat(live(keys.segment)),
        key_position=flat(keys.position),
        groups=groups,
    )


def _first(at: Coordinates, window: Window) -> jax.Array:
    """The first position that a query sees."""
    start = jnp.zeros_like(at.position)
    return start if window is None else jnp.maximum(start, at.position - window + 1)


def _rows(x: jax.Array, repeat: int) -> jax.Array:
    """[B, N, Q] as [B, N · Q · repeat]."""
    return jnp.repeat(x.reshape(x.shape[0], -1), repeat, axis=1)
