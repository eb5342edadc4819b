"""Attention by the kernels of `models.kernels`: from documents and branches to rows and blocks.

The heads that share a head of keys, and all tokens of all branches, are rows of queries of that
head, so a kernel knows nothing of grouped queries. What a row sees of the trunk and of its own
branch are two runs of positions (`visits.Sight`). On a mesh, each device computes its documents and
its heads; nothing is exchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp

from models.backend import gpu, interpreted, target
from models.kernels.attention import Kernels
from models.kernels.attention import attention as over_blocks
from models.kernels.tpu import TPUKernels
from models.kernels.triton import tiled
from models.kernels.visits import Sight
from models.mask import Coordinates, Keys, Window
from models.sharding import on_each_device

HEAD_DIMS = (64, 128, 256)
PLATFORMS = {"pallas_tpu": ("tpu",), "pallas_gpu": ("gpu", "cuda")}


def refusal(name: str, head_dim: int) -> str | None:
    """Why an implementation of `PLATFORMS` cannot serve, or None."""
    if interpreted() is None and target() not in PLATFORMS[name]:
        return (
            f"it needs a {name.removeprefix('pallas_').upper()}, and this is a {target().upper()}"
        )
    if head_dim not in HEAD_DIMS:
        return f"it has head sizes {', '.join(map(str, HEAD_DIMS))}, not {head_dim}"
    return None


def tpu_attention(*arguments: Any) -> jax.Array:
    """With the kernels for TPUs; arguments as of the reference."""
    return _attention(TPUKernels(interpret=interpreted() or False), *arguments)


def gpu_attention(q: jax.Array, *arguments: Any) -> jax.Array:
    """With the kernels for GPUs; arguments as of the reference."""
    kernels = tiled(q.shape[-1] * q.dtype.itemsize, gpu(), interpret=interpreted() is not None)
    return _attention(kernels, q, *arguments)


def _attention(
    kernels: Kernels,
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    def run(q: jax.Array, at: Coordinates, window: Window, shared: Keys, *own: Keys) -> jax.Array:
        batch, groups, length, heads, head_dim = q.shape
        kv_heads = shared.key.shape[1]
        repeat = heads // kv_heads
        rows = q.reshape(batch, groups * length, kv_heads, repeat, head_dim)
        rows = rows.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, -1, head_dim)
        sources = [(shared.key, shared.value)]
        sights = [_of_trunk(at, shared.at, window, repeat)]
        for keys in own:
            together = lambda x: x.reshape(batch, kv_heads, -1, head_dim)
            sources.append((together(keys.key), together(keys.value)))
            sights.append(_of_branches(at, keys.at, window, repeat))
        mixed = over_blocks(rows, tuple(sources), tuple(sights), scale, kernels)
        mixed = mixed.reshape(batch, kv_heads, groups * length, repeat, head_dim)
        return mixed.transpose(0, 2, 1, 3, 4).reshape(q.shape)

    rows, of_heads = ("rows",), ("rows", "kv_heads")
    keys: Any = Keys(of_heads, of_heads, rows)  # type: ignore[arg-type]
    branches = () if own is None else (own,)
    places = (("rows", None, None, "heads"), rows, (), keys, *[keys] * len(branches))
    run = on_each_device(run, places, ("rows", None, None, "heads"))
    return run(q, at, window, shared, *branches)


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
    return jnp.zeros_like(at.position) if window is None else at.position - window + 1


def _rows(x: jax.Array, repeat: int) -> jax.Array:
    """[B, N, Q] as [B, N · Q · repeat]."""
    return jnp.repeat(x.reshape(x.shape[0], -1), repeat, axis=1)
