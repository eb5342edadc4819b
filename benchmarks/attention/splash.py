"""JAX's splash attention for TPUs as a contender, with a mask that is known at trace time.

It skips blocks of the mask, as this project's kernels do, but selects them at trace time, so that
new forks need a new compilation. The benchmark times its best case: a kernel for each document,
compiled for its forks.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from benchmarks.attention import workload
from benchmarks.attention.contenders import UPDATE, causal_inputs, on_device
from benchmarks.attention.timing import Jitted
from benchmarks.attention.workload import AttentionSizes, NumpyCoordinates
from models.mask import Coordinates, visible

BLOCK = 512  # block size of queries and keys, or the largest power of two that divides them
Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def tree(sizes: AttentionSizes, interpret: bool = False) -> Jitted:
    """Return splash attention on rows of trunk and branches."""

    @functools.cache
    def inputs(decode: bool) -> tuple:
        x, cotangent = on_device(sizes, workload.packed(workload.arrays(sizes, decode)))
        return x, None, cotangent

    @functools.cache
    def kernels() -> list[Kernel]:
        query, key = workload.packed_coordinates(sizes, decode=False)
        row = lambda at, b: NumpyCoordinates(**{name: x[b] for name, x in vars(at).items()})
        masks = [_TreeMask(row(query, b), row(key, b)) for b in range(sizes.docs)]
        return [_kernel(mask, sizes, interpret) for mask in masks]

    def attend(x: dict[str, jax.Array], _: None) -> jax.Array:
        rows = [_attended(kernel, x, b) for b, kernel in enumerate(kernels())]
        return jnp.stack(rows)

    pairs = lambda step: sizes.pairs(decode=False)
    return Jitted("splash, mask known while tracing", attend, inputs, pairs, passes=UPDATE)


def causal(sizes: AttentionSizes, interpret: bool = False) -> Jitted:
    """Return splash attention on a causal trunk with equal useful FLOPs."""
    trunk = workload.causal(sizes)

    def attend(x: dict[str, jax.Array], _: None) -> jax.Array:
        kernel = _kernel(splash.CausalMask((trunk.trunk, trunk.trunk)), trunk, interpret)
        return jax.vmap(lambda one: _attended(kernel, one, None))(x)

    return Jitted(
        f"splash, causal T={trunk.trunk}",
        attend,
        causal_inputs(trunk),
        lambda step: trunk.pairs(decode=False),
        passes=UPDATE,
        comparable=not sizes.forks,
    )


class _TreeMask(splash.Mask):
    """The rule of the mask, evaluated for the requested part."""

    def __init__(self, query: NumpyCoordinates, key: NumpyCoordinates):
        self.query, self.key = query, key

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.query.segment), len(self.key.segment)

    def __getitem__(self, at: Any) -> np.ndarray:
        rows, columns = at
        cut = lambda at, part: NumpyCoordinates(**{n: x[part] for n, x in vars(at).items()})
        return _visible(cut(self.query, rows), cut(self.key, columns))


def _visible(query: NumpyCoordinates, key: NumpyCoordinates) -> np.ndarray:
    whole = lambda at: Coordinates(**vars(at))
    return np.asarray(visible(whole(query), whole(key)))


def _kernel(mask: splash.Mask, sizes: AttentionSizes, interpret: bool) -> Kernel:
    queries, keys = (min(BLOCK, length & -length) for length in mask.shape)
    blocks = splash.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        use_fused_bwd_kernel=True,
    )
    # Splash attention computes its tables with numpy, even while a caller traces.
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask] * sizes.heads), block_sizes=blocks, interpret=interpret
        )


def _attended(kernel: Kernel, x: dict[str, jax.Array], row: int | None) -> jax.Array:
    """Return the output [S, heads, head_dim] of one document, row `row` of the arrays in `x`."""
    one = x if row is None else {name: part[row] for name, part in x.items()}
    query, key, value = (one[name].swapaxes(0, 1) for name in ("query", "key", "value"))
    scaled = (query * query.shape[-1] ** -0.5).astype(query.dtype)
    return kernel(scaled, key, value).swapaxes(0, 1)
