"""The attention kernels for Hopper GPUs, H100 and H200 (Pallas, Mosaic GPU).

A program computes one block of 128 queries (forward, dq) or keys (dkv), 64 rows on each of two
compute warpgroups, and visits the blocks on the other side that its work list names (`visits`). A
third warpgroup fetches those with the copy engine (TMA), up to `stages` ahead, and hands them over
with barriers (`warpgroups`).

    forward   online softmax over the key blocks; the two warpgroups take turns, so that one
              multiplies matrices (wgmma) while the other computes exponentials
    dq        the same loops, with P recomputed from the log-sum-exp
    dkv       over the query blocks that see a key block, in their order, so that the sum over all
              branches of a trunk has one order

Pairs of blocks that are fully visible come first and have no mask; the mask of the others is
computed from the mask rows of both sides. The copy engine reads zeros past the end of an array and
writes nothing there, but it needs row counts that are multiples of 8: other arrays are padded
first, which is a copy. Scores are multiplied by scale · log2(e); exponentials are powers of two.

Programs do not share a query block, so with few queries (decoding) most of the GPU would be idle;
`models.kernels.triton` is used for those.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from models.kernels import hopper_bodies
from models.kernels.attention import Source
from models.kernels.blocks import LOG2_E, SEGMENT, BlockedAxis, kv_mask_rows, q_mask_rows
from models.kernels.hopper_walk import BLOCK, Launch, Worklists
from models.kernels.visits import RangeMask, Worklist, block_pairs, by_keys, by_queries

MAX_BLOCK_ELEMENTS = 128 * 128  # block_kv · head_dim of the forward pass, limited by registers


@dataclasses.dataclass(frozen=True)
class HopperKernels:
    """`attention.Kernels` for Hopper GPUs: bfloat16 or float16 and head_dim 64 or 128; the forward
    pass also takes head_dim 256 (`hopper_kernels`).

    Attributes:
      forward_block_kv: keys of a visited block in the forward pass; 64 or 128.
      dq_block_kv: keys of a visited block in the dq kernel; 64 or 128.
      dkv_block_q: queries of a visited block in the dkv kernel; 64 or 128.
      stages: number of ring buffers, for blocks that are being fetched or read.
      interpret: parameters of Pallas' interpret mode for GPUs, or False. Interpret mode has neither
        layouts nor products of registers, and its copies must not reach past the end of an array:
        plain products are used, and arrays are padded to whole blocks.
    """

    forward_block_kv: int = 128
    dq_block_kv: int = 128
    dkv_block_q: int = 64
    stages: int = 2
    interpret: Any = False

    def batch_parts(self, masks: Sequence[RangeMask]) -> int:
        """See `attention.Kernels`."""
        return 1

    def worklists(self, masks: Sequence[RangeMask], heads: int) -> Worklists:
        """See `attention.Kernels`."""
        pad = lambda x: BlockedAxis(x.shape[-1], BLOCK).pad(x)
        visible = lambda block_kv: [block_pairs(mask, BLOCK, block_kv) for mask in masks]
        return Worklists(
            forward=by_queries(visible(self.forward_block_kv), include_empty=False),
            dq=by_queries(visible(self.dq_block_kv), include_empty=False),
            dkv=[
                by_keys(block_pairs(m, self.dkv_block_q, BLOCK), include_empty=False) for m in masks
            ],
            q_mask=[_unmatched(pad(q_mask_rows(mask))) for mask in masks],
            kv_mask=[pad(kv_mask_rows(mask)) for mask in masks],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first_row: jax.Array,
        worklists: Worklists,
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`.

        Raises:
          ValueError: If the kernels do not support the dtype or the head dimension.
        """
        _check(q, MAX_BLOCK_ELEMENTS // self.forward_block_kv)
        rows = lambda x: x if len(x) == len(q) else lax.dynamic_slice_in_dim(x, first_row, len(q))
        sources = jax.tree.map(rows, sources)
        launch = self._by_queries(q, sources, worklists.forward, self.forward_block_kv)
        lse_shape = (*q.shape[:2], 1, launch.axes[0].padded)
        out, lse = launch.call(
            functools.partial(hopper_bodies.forward_kernel, scale * LOG2_E),
            target=[launch.vectors(0, q), *(launch.mask_rows(0, x) for x in worklists.q_mask)],
            stream=launch.source_operands(sources, worklists),
            results=[
                launch.vectors(0, q),
                launch.scalars_per_token(0, jax.ShapeDtypeStruct(lse_shape, jnp.float32)),
            ],
        )
        return out, lse[:, :, 0]

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
        """See `attention.Kernels`.

        Raises:
          ValueError: As `forward`, and for head_dim 256.
        """
        _check(q, 128)
        lse_delta = jnp.stack([lse, delta], axis=2)  # [B, H, 2, R]
        lse_delta = BlockedAxis(lse_delta.shape[3], BLOCK).pad(lse_delta)
        launch = self._by_queries(q, sources, worklists.dq, self.dq_block_kv)
        (dq,) = launch.call(
            functools.partial(hopper_bodies.dq_kernel, scale),
            target=[
                *(launch.vectors(0, x) for x in (q, do)),
                launch.scalars_per_token(0, lse_delta),
                *(launch.mask_rows(0, x) for x in worklists.q_mask),
            ],
            stream=launch.source_operands(sources, worklists),
            results=[launch.vectors(0, q)],
        )
        dkv = []
        for n, source in enumerate(sources):
            axes = BlockedAxis(source[0].shape[2], BLOCK), BlockedAxis(q.shape[2], self.dkv_block_q)
            launch = Launch(worklists.dkv[n], axes, False, self.stages, self.interpret)
            q_operands = [
                *(launch.vectors(1, x) for x in (q, do)),
                launch.scalars_per_token(1, lse_delta),
                launch.mask_rows(1, worklists.q_mask[n]),
            ]
            dk, dv = launch.call(
                functools.partial(hopper_bodies.dkv_kernel, scale),
                target=[
                    *(launch.vectors(0, x) for x in source),
                    launch.mask_rows(0, worklists.kv_mask[n]),
                ],
                stream=[[q_operands]],
                results=[launch.vectors(0, x) for x in source],
            )
            dkv.append((dk, dv))
        return dq, dkv

    def _by_queries(
        self, q: jax.Array, sources: Sequence[Source], work: Worklist, block_kv: int
    ) -> Launch:
        kv_axes = (BlockedAxis(key.shape[2], block_kv) for key, _ in sources)
        axes = BlockedAxis(q.shape[2], BLOCK), *kv_axes
        return Launch(work, axes, True, self.stages, self.interpret)


def hopper_kernels(head_dim: int, interpret: Any = False) -> HopperKernels:
    """Return the kernels for a head size, with blocks that fit registers and shared memory.

    Args:
      head_dim: 64, 128 or, for the forward pass alone, 256.
      interpret: see `HopperKernels`.
    """
    return HopperKernels(
        forward_block_kv=min(128, MAX_BLOCK_ELEMENTS // head_dim),
        stages=4 if head_dim <= 64 else 2,
        interpret=interpret,
    )


def _unmatched(q_mask: jax.Array) -> jax.Array:
    """Replace segment 0 of queries by -1, which no key has: a mask then only compares segments."""
    q_segment = q_mask[:, SEGMENT]
    return q_mask.at[:, SEGMENT].set(jnp.where(q_segment > 0, q_segment, -1))


def _check(q: jax.Array, max_head_dim: int) -> None:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(f"the Hopper kernels compute in bfloat16 or float16, not {q.dtype}")
    if q.shape[3] not in (64, 128, 256) or q.shape[3] > max_head_dim:
        raise ValueError(
            f"the Hopper kernels do not support head_dim={q.shape[3]} here; use 64 or 128 (256 in "
            f"the forward pass alone), and at most {max_head_dim} with these block sizes"
        )
