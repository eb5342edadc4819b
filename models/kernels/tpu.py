"""The attention kernels for TPUs (Pallas, Mosaic).

The grid of a kernel is its work list (`visits`): one step for each visible pair of blocks, a number
that is known on the device alone. Mosaic fetches the blocks of the next step while it computes one,
and does not fetch a block again if it stays the same.

    forward   a query block; online softmax over its key blocks
    dq        a query block; the same steps, with P recomputed from the log-sum-exp
    dkv       a key block; over the query blocks that see it, in their order, so that the sum over
              all branches of a trunk has one order

Scores are multiplied by scale · log2(e), and exponentials are powers of two. The last block of an
array may extend past its end, where memory holds anything, NaN included. Such rows are replaced by
zeros before they enter a matrix product, because 0 · NaN is NaN.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from models.kernels.attention import Source
from models.kernels.blocks import LOG2_E, BlockedAxis, kv_mask_rows, q_mask_rows
from models.kernels.tpu_bodies import LANES, dkv_kernel, dq_kernel, forward_kernel
from models.kernels.tpu_grid import SUBLANES, Operand, Steps, WorklistGrid, Worklists
from models.kernels.visits import RangeMask, block_pairs, by_keys, by_queries, count_candidates

SCALARS = 3 * 2**16  # prefetched int32 values: three quarters of a TPU's scalar memory, 1 MiB


@dataclasses.dataclass(frozen=True)
class TPUKernels:
    """`attention.Kernels` for TPUs.

    Attributes:
      block_q: queries of a block, at most; a multiple of 128.
      block_kv: keys of a block, at most; a multiple of 128.
      interpret: as in `pallas_call`.
    """

    block_q: int = 512
    block_kv: int = 512
    interpret: Any = False

    def batch_parts(self, masks: Sequence[RangeMask]) -> int:
        """See `attention.Kernels`. The work list is prefetched to scalar memory, so it must fit."""
        q_axis = self._q_axis(masks[0].queries)
        kv_axes = [self._kv_axis(mask.keys) for mask in masks]
        candidates = sum(
            count_candidates(mask, q_axis.block, kv_axis.block)
            for mask, kv_axis in zip(masks, kv_axes, strict=True)
        )
        steps = candidates + max(axis.blocks for axis in (q_axis, *kv_axes))
        batch, rows = len(masks[0].low), SCALARS // ((2 + len(masks)) * steps)
        if not rows:
            raise ValueError(
                f"a row of {masks[0].queries} queries and {sum(m.keys for m in masks)} keys has "
                "too many blocks for a TPU's scalar memory; use model.attention='xla', which has "
                "no such limit"
            )
        return next(n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= rows)

    def worklists(self, masks: Sequence[RangeMask], heads: int) -> Worklists:
        """See `attention.Kernels`."""
        q_axis = self._q_axis(masks[0].queries)
        kv_axes = [self._kv_axis(mask.keys) for mask in masks]
        pairs = [block_pairs(m, q_axis.block, k.block) for m, k in zip(masks, kv_axes, strict=True)]
        return Worklists(
            by_queries=Steps.of(by_queries(pairs, include_empty=True), len(masks)),
            by_keys=[Steps.of(by_keys(p, include_empty=True), 1) for p in pairs],
            q_mask=[_to_sublanes(q_axis.pad(q_mask_rows(mask))) for mask in masks],
            kv_mask=[
                _to_sublanes(k.pad(kv_mask_rows(m))) for m, k in zip(masks, kv_axes, strict=True)
            ],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first_row: jax.Array,
        worklists: Worklists,
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`."""
        grid = self._by_queries(q, sources, worklists, first_row)
        q_axis = grid.axes[0]
        lse_shape = jax.ShapeDtypeStruct((*q.shape[:2], 1, q_axis.padded), jnp.float32)
        out, lse = grid.call(
            functools.partial(forward_kernel, scale * LOG2_E, grid.axes[1:]),
            [grid.vectors(0, q), *grid.source_operands(sources, worklists)],
            [grid.vectors(0, q), grid.scalars_per_token(0, lse_shape)],
            [(q_axis.block, LANES), (q_axis.block, LANES), (q_axis.block, q.shape[-1])],
        )
        return out, lse[:, :, 0, : q_axis.length]

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        worklists: Worklists,
        scale: float,
        lse: jax.Array,
        delta: jax.Array,
        do: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """See `attention.Kernels`."""
        q_axis = self._q_axis(q.shape[2])
        per_query = [q_axis.pad(x[:, :, None]) for x in (lse, delta)]

        def q_operands(grid: WorklistGrid, side: int) -> list[Operand]:
            vectors = [grid.vectors(side, x) for x in (q, do)]
            return vectors + [grid.scalars_per_token(side, x) for x in per_query]

        grid = self._by_queries(q, sources, worklists)
        (dq,) = grid.call(
            functools.partial(dq_kernel, scale, grid.axes[1:]),
            [*q_operands(grid, 0), *grid.source_operands(sources, worklists)],
            [grid.vectors(0, q)],
            [(q_axis.block, LANES), (q_axis.block, LANES), (q_axis.block, q.shape[-1])],
        )
        dkv = []
        for n, source in enumerate(sources):
            axes = self._kv_axis(source[0].shape[2]), q_axis
            grid = WorklistGrid(
                worklists.by_keys[n], axes, q.shape[1], jnp.int32(0), self.interpret
            )
            kv_operands = [grid.vectors(0, x) for x in source]
            mask_operands = [
                grid.mask_rows(1, worklists.q_mask[n]),
                grid.mask_rows(0, worklists.kv_mask[n]),
            ]
            dk, dv = grid.call(
                functools.partial(dkv_kernel, scale, q_axis),
                [*q_operands(grid, 1), *kv_operands, *mask_operands],
                kv_operands,
                [(axes[0].block, q.shape[-1])] * 2,
            )
            dkv.append((dk, dv))
        return dq, dkv

    def _q_axis(self, length: int) -> BlockedAxis:
        return _axis(length, self.block_q)

    def _kv_axis(self, length: int) -> BlockedAxis:
        return _axis(length, self.block_kv)

    def _by_queries(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        worklists: Worklists,
        first_row: jax.Array | int = 0,
    ) -> WorklistGrid:
        axes = self._q_axis(q.shape[2]), *(self._kv_axis(key.shape[2]) for key, _ in sources)
        row = jnp.int32(first_row)
        return WorklistGrid(worklists.by_queries, axes, q.shape[1], row, self.interpret)


def _axis(length: int, limit: int) -> BlockedAxis:
    return BlockedAxis(length, limit if length > limit else -(-length // 16) * 16)


def _to_sublanes(x: jax.Array) -> jax.Array:
    """Pad mask rows [B, rows, n] to [B, 1, SUBLANES, n]."""
    return jnp.pad(x[:, None], [(0, 0), (0, 0), (0, SUBLANES - x.shape[1]), (0, 0)])
