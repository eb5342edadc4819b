"""The attention kernels for GPUs (Pallas, Triton), from Ampere to Blackwell.

One program computes one block of results and loops over the blocks that its work list names:

    forward   a query block; online softmax over its key blocks
    dq        a query block; the same loops, with P recomputed from the log-sum-exp
    dkv       a key block; over the query blocks that see it, in their order, so that the sum over
              all branches of a trunk has one order, without atomics

Pairs of blocks that are fully visible come first in the list and need no mask. Scores are
multiplied by scale · log2(e), and exponentials are powers of two. If there are too few query blocks
to fill the chip (decoding), several programs share a query block, each with a part of its key
blocks (split-K, as in Flash-Decoding), and their partial results are merged by log-sum-exp.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from models.kernels.attention import Source
from models.kernels.blocks import LOG2_E, BlockedAxis, kv_mask_rows, q_mask_rows
from models.kernels.triton_bodies import dkv_kernel, dq_kernel, forward_kernel
from models.kernels.visits import (
    BlockPairs,
    RangeMask,
    Worklist,
    block_pairs,
    by_keys,
    by_queries,
)

MIN_BLOCK, MAX_BLOCK = 16, 128  # tokens of a block


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Block sizes and launch parameters of a kernel.

    Attributes:
      block_q: queries of a block, at most; a power of two.
      block_kv: keys of a block, at most; a power of two.
      num_warps: warps that compute a block.
      num_stages: software pipeline stages, the block that is being computed included.
    """

    block_q: int
    block_kv: int
    num_warps: int
    num_stages: int


@dataclasses.dataclass(frozen=True)
class TritonKernels:
    """`attention.Kernels` for GPUs; head_dim is a power of two.

    Attributes:
      forward_tiles: tiles of the forward pass.
      dq_tiles: tiles of the dq kernel.
      dkv_tiles: tiles of the dkv kernel.
      split_tiles: tiles of a forward pass in which several programs share a query block.
      programs: number of programs that fill the chip.
      interpret: as in `pallas_call`.
    """

    forward_tiles: Tiles
    dq_tiles: Tiles
    dkv_tiles: Tiles
    split_tiles: Tiles
    programs: int
    interpret: bool = False

    def batch_parts(self, masks: Sequence[RangeMask]) -> int:
        """See `attention.Kernels`."""
        return 1

    def worklists(self, masks: Sequence[RangeMask], heads: int) -> "_Worklists":
        """See `attention.Kernels`."""
        batch, rows = masks[0].low.shape

        def pairs(tiles: Tiles) -> list[BlockPairs]:
            q_axis, *kv_axes = _axes(tiles, rows, [mask.keys for mask in masks])
            return [
                block_pairs(mask, q_axis.block, kv_axis.block)
                for mask, kv_axis in zip(masks, kv_axes, strict=True)
            ]

        forward_tiles, _ = self._forward_tiles(batch * heads, rows)
        pad = lambda x: BlockedAxis(x.shape[-1], MAX_BLOCK).pad(x)
        return _Worklists(
            forward=by_queries(pairs(forward_tiles), include_empty=False),
            dq=by_queries(pairs(self.dq_tiles), include_empty=False),
            dkv=[by_keys(p, include_empty=False) for p in pairs(self.dkv_tiles)],
            q_mask=[pad(q_mask_rows(mask)) for mask in masks],
            kv_mask=[pad(kv_mask_rows(mask)) for mask in masks],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first_row: jax.Array,
        worklists: "_Worklists",
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`."""
        batch, heads, rows, _ = q.shape
        tiles, splits = self._forward_tiles(batch * heads, rows)
        q_axis, *kv_axes = _axes(tiles, rows, [key.shape[2] for key, _ in sources])
        kernel = functools.partial(
            forward_kernel, log2_scale=scale * LOG2_E, q_axis=q_axis, kv_axes=kv_axes, splits=splits
        )
        out, lse = pl.pallas_call(
            kernel,
            grid=(q_axis.blocks * splits, heads, batch),
            out_shape=[
                jax.ShapeDtypeStruct((splits, *q.shape), q.dtype if splits == 1 else jnp.float32),
                jax.ShapeDtypeStruct((splits, *q.shape[:3]), jnp.float32),
            ],
            **self._options(tiles, "attention_forward"),
        )(
            first_row[None],
            worklists.forward.starts,
            worklists.forward.other,
            q,
            *_source_operands(sources, worklists),
        )
        return (out[0], lse[0]) if splits == 1 else _merge_splits(out, lse, q.dtype)

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        worklists: "_Worklists",
        scale: float,
        lse: jax.Array,
        delta: jax.Array,
        do: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """See `attention.Kernels`."""
        batch, heads, rows, _ = q.shape
        lengths = [key.shape[2] for key, _ in sources]
        q_operands = q, do, lse, delta
        q_axis, *kv_axes = _axes(self.dq_tiles, rows, lengths)
        dq = pl.pallas_call(
            functools.partial(dq_kernel, scale=scale, q_axis=q_axis, kv_axes=kv_axes),
            grid=(q_axis.blocks, heads, batch),
            out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
            **self._options(self.dq_tiles, "attention_dq"),
        )(
            worklists.dq.starts,
            worklists.dq.other,
            *q_operands,
            *_source_operands(sources, worklists),
        )
        dkv = []
        for n, (key, value) in enumerate(sources):
            q_axis, kv_axis = _axes(self.dkv_tiles, rows, [lengths[n]])
            dk, dv = pl.pallas_call(
                functools.partial(dkv_kernel, scale=scale, q_axis=q_axis, kv_axis=kv_axis),
                grid=(kv_axis.blocks, heads, batch),
                out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value)],
                **self._options(self.dkv_tiles, "attention_dkv"),
            )(
                worklists.dkv[n].starts,
                worklists.dkv[n].other,
                *q_operands,
                key,
                value,
                worklists.q_mask[n],
                worklists.kv_mask[n],
            )
            dkv.append((dk, dv))
        return dq, dkv

    def _forward_tiles(self, batch_heads: int, rows: int) -> tuple[Tiles, int]:
        """Return the tiles for `batch_heads` (B · H) times `rows` queries, and the number of
        programs that share a query block."""
        blocks = lambda tiles: batch_heads * -(-rows // tiles.block_q)
        if blocks(self.forward_tiles) >= self.programs:
            return self.forward_tiles, 1
        return self.split_tiles, max(1, self.programs // blocks(self.split_tiles))

    def _options(self, tiles: Tiles, name: str) -> dict[str, Any]:
        parameters = plgpu.CompilerParams(num_warps=tiles.num_warps, num_stages=tiles.num_stages)
        return {"compiler_params": parameters, "interpret": self.interpret, "name": name}


# Tiles (forward, dq, dkv, split) by head_dim. Chosen by compiling for sm_90a: they fit the shared
# memory and spill few registers or none (benchmarks/attention.md).
SMALL = {  # 16-bit dtypes, 99 KiB of shared memory
    64: (Tiles(128, 128, 8, 3), Tiles(128, 64, 8, 2), Tiles(64, 128, 8, 2), Tiles(64, 64, 4, 3)),
    128: (Tiles(64, 64, 4, 3), Tiles(64, 64, 4, 2), Tiles(64, 64, 8, 3), Tiles(64, 64, 4, 3)),
    256: (Tiles(64, 32, 4, 2), Tiles(32, 64, 4, 1), Tiles(32, 32, 8, 1), Tiles(64, 32, 4, 2)),
}
LARGE = SMALL | {  # 16-bit dtypes, 163 KiB of shared memory
    128: (Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 2), Tiles(64, 128, 8, 2), Tiles(64, 64, 4, 3)),
}
FLOAT32 = {  # no matrix unit multiplies float32 exactly, so operands and sums are in registers
    64: (Tiles(32, 32, 4, 1),) * 4,
    128: (Tiles(32, 16, 4, 1), Tiles(32, 16, 4, 1), Tiles(16, 32, 4, 1), Tiles(32, 16, 4, 1)),
    256: (Tiles(16, 16, 4, 1),) * 4,
}


def triton_kernels(head_dim: int, dtype: Any, gpu: Any, interpret: bool) -> TritonKernels:
    """Return the kernels for a head size and dtype.

    Args:
      head_dim: 64, 128 or 256.
      dtype: of queries, keys and values.
      gpu: a GPU with `cores` (multiprocessors) and `shared_memory` (bytes of a thread block).
      interpret: run in interpret mode, which has no registers and uses the tiles of 16-bit dtypes
        for every dtype.
    """
    table = SMALL if gpu.shared_memory < 163 * 1024 else LARGE
    table = FLOAT32 if dtype == jnp.float32 and not interpret else table
    return TritonKernels(*table[head_dim], programs=2 * gpu.cores, interpret=interpret)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "dq", "dkv", "q_mask", "kv_mask"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class _Worklists:
    """Work lists of the kernels, and the mask rows of each source.

    Attributes:
      forward: by query block, over all sources.
      dq: by query block, over all sources.
      dkv: by key block, one list for each source.
      q_mask: `q_mask_rows` of each source, int32 [B, 3, R], padded to a multiple of MAX_BLOCK.
      kv_mask: `kv_mask_rows` of each source, int32 [B, 2, S], padded likewise.
    """

    forward: Worklist
    dq: Worklist
    dkv: list[Worklist]
    q_mask: list[jax.Array]
    kv_mask: list[jax.Array]


def _axes(tiles: Tiles, rows: int, keys: Sequence[int]) -> tuple[BlockedAxis, ...]:
    """Return the axes of `rows` queries and of each source's `keys`, with blocks that fit them."""
    axis = lambda length, limit: BlockedAxis(
        length, min(limit, max(MIN_BLOCK, pl.next_power_of_2(length)))
    )
    return axis(rows, tiles.block_q), *(axis(length, tiles.block_kv) for length in keys)


def _source_operands(sources: Sequence[Source], worklists: _Worklists) -> list[jax.Array]:
    """Return keys, values, query mask rows and key mask rows of each source in turn."""
    operands = []
    for n, source in enumerate(sources):
        operands += [*source, worklists.q_mask[n], worklists.kv_mask[n]]
    return operands


def _merge_splits(out: jax.Array, lse: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Merge the partial results of several programs for the same queries.

    Args:
      out: normalized partial outputs, float32 [splits, B, H, R, d].
      lse: their base-2 log-sum-exp, float32 [splits, B, H, R].
      dtype: dtype of the merged output.
    """
    top = lse.max(0)
    weights = jnp.exp2(lse - top[None])
    total = weights.sum(0)
    out = (weights[..., None] * out).sum(0) / total[..., None]
    return out.astype(dtype), top + jnp.log2(total)
