"""Random inputs of tree attention, and a dense reference implementation in float64."""

import contextlib
import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
from jax.experimental.pallas import tpu as pltpu

from models.attention import attention
from models.backend import interpreting
from models.kernels import blocks
from models.kernels.tpu import TPUKernels
from models.kernels.triton import Tiles, TritonKernels
from models.kernels.visits import RangeMask
from models.mask import Coordinates, Keys
from tests.support import interpreter  # noqa: F401  makes interpreters quick

COORDINATES = "segment", "branch", "position", "fork"


@dataclasses.dataclass(frozen=True)
class Forest:
    """Rows of documents with branches.

    The queries are all slots of all branches, or the tokens of the trunk if there are no branches.

    Attributes:
      arrays: q, key and value, and with branches also own_key and own_value; see `attention`.
      at: Coordinates of the queries.
      shared: Coordinates of the keys of the trunk.
      own: Coordinates of the keys of the branches, or None.
      cotangent: Cotangent of the output, with the shape of q; 0 for queries that see no key.
      window: See `attention`.
    """

    arrays: dict[str, jax.Array]
    at: Coordinates
    shared: Coordinates
    own: Coordinates | None
    cotangent: jax.Array
    window: int | None


def forest(
    seed: int = 0,
    *,
    rows: int = 2,
    trunk: int = 64,
    documents: int = 2,
    branches: int = 4,
    slots: int = 8,
    last: bool = False,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    dtype: Any = jnp.float32,
    window: int | None = None,
) -> Forest:
    """Draw documents of random lengths followed by padding, and branches with dead slots.

    The first branch forks at position 1, the second at the end of its document; the third is empty.

    Args:
      last: Use only the last slot of each branch as a query.
      branches: N; 0 for documents without branches.
    """
    random = np.random.default_rng(seed)
    ends = np.sort(random.choice(np.arange(1, trunk + 1), (rows, documents)), axis=1)
    slot = np.arange(trunk)
    segment = 1 + (slot[None, :, None] >= ends[:, None, :]).sum(-1)
    segment = np.where(segment > documents, 0, segment)
    begins = np.concatenate([np.zeros((rows, 1), int), ends], axis=1)
    position = np.where(segment > 0, slot - np.take_along_axis(begins, segment - 1, 1), 0)
    zero = np.zeros_like(segment)
    at = shared = Coordinates(segment, zero, position, zero)
    own = None
    if branches:
        lengths = np.diff(begins, axis=1)
        document = random.integers(1, documents + 1, (rows, branches, 1))
        length = np.take_along_axis(lengths, document[..., 0] - 1, 1)[..., None]
        fork = random.integers(0, length + 1)
        fork[:, :1], fork[:, 1:2] = np.minimum(1, length[:, :1]), length[:, 1:2]
        live = random.random((rows, branches, slots)) < 0.8
        live[:, 2:3] = False
        spread = lambda x: np.broadcast_to(x, live.shape)
        own = at = Coordinates(
            segment=np.where(live, document, 0),
            branch=spread(np.arange(1, branches + 1)[None, :, None]),
            position=fork + np.cumsum(live, axis=2) - 1,
            fork=spread(fork),
        )
        if last:
            at = jax.tree.map(lambda x: x[:, :, -1:], at)
    else:
        at = jax.tree.map(lambda x: x[:, None], at)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
    arrays = {
        "q": draw(*at.segment.shape, heads, head_dim),
        "key": draw(rows, kv_heads, trunk, head_dim),
        "value": draw(rows, kv_heads, trunk, head_dim),
    }
    if branches:
        arrays["own_key"] = draw(rows, kv_heads, branches, slots, head_dim)
        arrays["own_value"] = draw(rows, kv_heads, branches, slots, head_dim)
    integers = lambda c: jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), c)
    drawn = Forest(arrays, *map(integers, (at, shared, own)), draw(*arrays["q"].shape), window)
    sees = mask(drawn).any(-1).reshape(at.segment.shape)
    cotangent = jnp.where(jnp.asarray(sees)[..., None, None], drawn.cotangent, 0)
    return dataclasses.replace(drawn, cotangent=cotangent)


def mask(forest: Forest) -> np.ndarray:
    """Return the attention mask, bool [B, N · Q, S + N · W], written as in docs/design.md."""

    def flat(c: Coordinates) -> list[np.ndarray]:
        return [np.asarray(getattr(c, name)).reshape(len(c.segment), -1) for name in COORDINATES]

    keys = [flat(c) for c in (forest.shared, forest.own) if c is not None]
    keys = [np.concatenate(parts, axis=1)[:, None, :] for parts in zip(*keys, strict=True)]
    k_segment, k_branch, k_position, _ = keys
    segment, branch, position, fork = (x[:, :, None] for x in flat(forest.at))
    return (
        (k_segment == segment)
        & (segment > 0)
        & (k_position <= position)
        & ((k_branch == branch) | (k_branch == 0) & (k_position < fork))
        & (k_position > position - (forest.window or 2**30))
    )


def dense_mask(mask: RangeMask) -> np.ndarray:
    """Return the attention mask, bool [B, R, S], by the comparisons that the kernels make."""
    return np.asarray(
        jax.vmap(lambda q_rows, kv_rows: blocks.block_mask(q_rows, kv_rows, 0))(
            blocks.q_mask_rows(mask), blocks.kv_mask_rows(mask)
        )
    )


def dense(forest: Forest) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compute attention and its gradients densely in float64."""
    a = {name: np.asarray(x, np.float64) for name, x in forest.arrays.items()}
    batch, _, _, heads, head_dim = a["q"].shape
    kv_heads = a["key"].shape[1]
    flat = lambda x: x.reshape(batch, kv_heads, -1, head_dim)
    names = [("key", "value"), ("own_key", "own_value")][: 2 if forest.own is not None else 1]
    counts = [a[key].size // (batch * kv_heads * head_dim) for key, _ in names]
    keys = np.concatenate([flat(a[key]) for key, _ in names], axis=2)
    values = np.concatenate([flat(a[value]) for _, value in names], axis=2)
    by_head = lambda x: np.moveaxis(
        x.reshape(batch, -1, kv_heads, heads // kv_heads, head_dim), 1, 3
    )
    back = lambda x: np.moveaxis(x, 3, 1).reshape(a["q"].shape)
    q = by_head(a["q"])  # [B, kv, repeat, N · Q, d]
    cotangent = by_head(np.asarray(forest.cotangent, np.float64))
    seen = mask(forest)[:, None, None]
    scores = np.where(seen, np.einsum("bhrqd,bhkd->bhrqk", q, keys) / head_dim**0.5, -np.inf)
    top = np.max(scores, axis=-1, keepdims=True, initial=-1e30)
    weights = np.exp(scores - top)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    mixed = np.einsum("bhrqk,bhkd->bhrqd", weights, values)
    dweights = np.einsum("bhrqd,bhkd->bhrqk", cotangent, values)
    dscores = weights * (dweights - (mixed * cotangent).sum(-1, keepdims=True)) / head_dim**0.5
    dkeys = np.einsum("bhrqk,bhrqd->bhkd", dscores, q)
    dvalues = np.einsum("bhrqk,bhrqd->bhkd", weights, cotangent)
    gradient = {"q": back(np.einsum("bhrqk,bhkd->bhrqd", dscores, keys))}
    for n, (key, value) in enumerate(names):
        part = slice(sum(counts[:n]), sum(counts[: n + 1]))
        gradient[key] = dkeys[:, :, part].reshape(a[key].shape)
        gradient[value] = dvalues[:, :, part].reshape(a[value].shape)
    return back(mixed), gradient


def run(
    arrays: dict[str, jax.Array], f: Forest, implementation: str | None, **options: Any
) -> jax.Array:
    """Run `models.attention.attention`."""
    own = Keys(arrays["own_key"], arrays["own_value"], f.own) if f.own is not None else None
    return attention(
        arrays["q"],
        f.at,
        Keys(arrays["key"], arrays["value"], f.shared),
        own,
        window=f.window,
        in_order=f.own is None,
        implementation=implementation,
        **options,
    )


def run_and_vjp(f: Forest, implementation: str | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the output of attention, and the gradients for the cotangent of the forest."""
    out, back = jax.vjp(lambda arrays: run(arrays, f, implementation), f.arrays)
    return out, back(f.cotangent)[0]


def anywhere(implementation: str, races: bool = False, small: bool = True) -> Any:
    """Return a context in which a kernel is interpreted.

    Memory that the kernel does not write is NaN, and two TPU cores share the work.

    Args:
      implementation: Name of the implementation.
      races: Whether to detect data races.
      small: Whether to use `small_blocks`.
    """
    context = contextlib.ExitStack()
    if small:
        context.enter_context(small_blocks())
    if implementation == "pallas_tpu":
        params = pltpu.InterpretParams(detect_races=races, num_cores_or_threads=2)
        context.enter_context(interpreting(params))
    elif implementation == "pallas_hopper":
        context.enter_context(interpreting(InterpretGPUParams(detect_races=races)))
    elif implementation.startswith("pallas"):
        context.enter_context(interpreting())
    return context


def small_blocks() -> Any:
    """Return a context in which kernels have small blocks, so that short rows have many of them.

    The GPU has so few programs that some share a block of queries and others do not. The blocks of
    the Hopper kernel are not changed.
    """
    tpu = functools.partial(TPUKernels, block_q=128, block_kv=64)
    context = contextlib.ExitStack()
    context.enter_context(mock.patch("models.kernels.tpu.TPUKernels", tpu))
    context.enter_context(mock.patch("models.kernels.triton.triton_kernels", _small_tiles))
    return context


def _small_tiles(*_: Any, interpret: bool) -> TritonKernels:
    sizes = (32, 32), (32, 16), (16, 32), (16, 32)
    return TritonKernels(*(Tiles(*size, 4, 1) for size in sizes), programs=16, interpret=interpret)


jax.tree_util.register_dataclass(
    Forest,
    data_fields=["arrays", "at", "shared", "own", "cotangent"],
    meta_fields=["window"],
)
