"""The bodies of the attention kernels for Hopper GPUs: what a compute warpgroup does in a program.

The grid is (B · H · target blocks,), one program each (`hopper_walk.Launch`). Refs are buffers in
shared memory: ROWS = 64 tokens of the target block for each warpgroup, and the visited blocks as
they arrive (`warpgroups.Program`). Names and equations are those of FlashAttention-2
(`models.kernels.attention`): m_i is the running maximum of a row of scores, l_i the running sum of
their exponentials, acc the unnormalized output. The forward kernel schedules its warpgroups as
FlashAttention-3 does (Shah et al., arXiv 2407.08608, "ping-pong").
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from models.kernels.blocks import HIGH, LOG2_E, LOW, POSITION, SEGMENT, Ref
from models.kernels.warpgroups import COLUMN, MATRIX, ROW, ROWS, Block, Program, Registers

UNSCALED_MASK = -1e30  # masked score before scaling; finite, so that a difference of two is not NaN


def forward_kernel(log2_scale: float, program: Program, warpgroup: Any) -> list[jax.Array]:
    """Compute O and the log-sum-exp of 64 queries (FlashAttention-2, Algorithm 1).

    Scores are scaled only as they enter an exponential. The warpgroups take turns twice for every
    key block, one of them half a block behind, so that one multiplies matrices while the other
    computes exponentials.

    Args:
      log2_scale: scale of the scores times log2(e).
      program: `fixed_bufs` are q_ref [64, d] and for each source q_mask_ref, int32 [3, 64];
        `block_bufs` are (k_ref [block_kv, d], kv_mask_ref int32 [2, block_kv]) and (v_ref
        [block_kv, d]).
      warpgroup: index of this warpgroup.

    Returns:
      O, float32 [64, d], and the base-2 log-sum-exp, float32 [64].
    """
    q_ref, *q_mask_refs = program.fixed_bufs
    registers, dtype = program.registers, q_ref.dtype
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def visit(block: Block, carry: Any) -> Any:
        acc, m_i, l_i = carry
        k_ref = block.get(0, 0)
        (s,) = registers.products([(q_ref, k_ref)], meanwhile=program.take_turns)
        if block.masked:
            s = jnp.where(
                _block_mask(registers, q_mask_refs[block.source], block.get(0, 1), 0),
                s,
                UNSCALED_MASK,
            )
        block.free(0)
        m_next = jnp.maximum(m_i, s.max(axis=1))
        offset = jnp.where(m_next > UNSCALED_MASK, m_next, 0.0) if block.masked else m_next
        p = jnp.exp2(s * log2_scale - spread(offset * log2_scale, s))
        alpha = jnp.exp2((m_i - m_next) * log2_scale)
        l_i = l_i * alpha + p.sum(axis=1)
        acc = acc * spread(alpha, acc)
        acc, m_next, l_i, p = lax.optimization_barrier((acc, m_next, l_i, p.astype(dtype)))
        program.take_turns()
        (acc,) = registers.accumulate([acc], [(p, block.get(1, 0))])
        block.free(1)
        return acc, m_next, l_i

    carry = (
        registers.full(q_ref.shape, 0.0, MATRIX),
        registers.full((ROWS,), UNSCALED_MASK, ROW),
        registers.full((ROWS,), 0.0, ROW),
    )
    pl.when(warpgroup == 1)(program.take_turns)  # half a step behind the other
    acc, m_i, l_i = program.visit_blocks(visit, carry)
    pl.when(warpgroup == 0)(program.take_turns)
    sees = l_i > 0.0
    l_i = jnp.where(sees, l_i, 1.0)
    lse = jnp.where(sees, m_i * log2_scale + jnp.log(l_i) * LOG2_E, 0.0)
    return [acc * spread(1.0 / l_i, acc), lse]


def dq_kernel(scale: float, program: Program, _: Any) -> list[jax.Array]:
    """Compute dQ of 64 queries (FlashAttention-2, Algorithm 2): dQ = scale · dS K.

    Args:
      scale: scale of the scores.
      program: `fixed_bufs` are q_ref and do_ref, [64, d], lse_delta_ref, float32 [2, 64] (base-2
        log-sum-exp and rowsum(dO ∘ O)), and for each source q_mask_ref, int32 [3, 64];
        `block_bufs` are as in `forward_kernel`.

    Returns:
      dQ, float32 [64, d].
    """
    q_ref, do_ref, lse_delta_ref, *q_mask_refs = program.fixed_bufs
    registers = program.registers
    lse, delta = (registers.load(lse_delta_ref, n, ROW) for n in range(2))
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def visit(block: Block, dq: jax.Array) -> jax.Array:
        k_ref, v_ref = block.get(0, 0), block.get(1, 0)
        s, dp = registers.products([(q_ref, k_ref), (do_ref, v_ref)])
        block.free(1)
        p = jnp.exp2(s * (scale * LOG2_E) - spread(lse, s))
        if block.masked:
            p = jnp.where(
                _block_mask(registers, q_mask_refs[block.source], block.get(0, 1), 0), p, 0.0
            )
        ds = p * (dp - spread(delta, dp))
        (dq,) = registers.accumulate([dq], [(ds.astype(q_ref.dtype), k_ref)])
        block.free(0)
        return dq

    return [program.visit_blocks(visit, registers.full(q_ref.shape, 0.0, MATRIX)) * scale]


def dkv_kernel(scale: float, program: Program, _: Any) -> list[jax.Array]:
    """Compute dK and dV of 64 keys of one source (FlashAttention-2, Algorithm 2).

    dK = scale · dSᵀ Q and dV = Pᵀ dO. The queries of all branches that see the keys are summed in
    the order of their blocks.

    Args:
      scale: scale of the scores.
      program: `fixed_bufs` are k_ref and v_ref, [64, d], and kv_mask_ref, int32 [2, 64];
        `block_bufs` are one group: q_ref and do_ref, [block_q, d], lse_delta_ref, float32
        [2, block_q], and q_mask_ref, int32 [3, block_q].

    Returns:
      dK and dV, float32 [64, d].
    """
    k_ref, v_ref, kv_mask_ref = program.fixed_bufs
    registers = program.registers
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [1])

    def visit(block: Block, carry: Any) -> Any:
        q_ref, do_ref, lse_delta_ref = (block.get(0, n) for n in range(3))
        s, dp = registers.products([(k_ref, q_ref), (v_ref, do_ref)])  # [keys, queries]
        lse, delta = (registers.load(lse_delta_ref, n, COLUMN) for n in range(2))
        p = jnp.exp2(s * (scale * LOG2_E) - spread(lse, s))
        if block.masked:
            p = jnp.where(_block_mask(registers, block.get(0, 3), kv_mask_ref, 1), p, 0.0)
        ds = p * (dp - spread(delta, dp))
        pairs = [(ds.astype(q_ref.dtype), q_ref), (p.astype(q_ref.dtype), do_ref)]
        carry = registers.accumulate(carry, pairs)
        block.free(0)
        return carry

    zeros = registers.full(k_ref.shape, 0.0, MATRIX)
    dk, dv = program.visit_blocks(visit, [zeros, zeros])
    return [dk * scale, dv]


def _block_mask(registers: Registers, q_mask_ref: Ref, kv_mask_ref: Ref, q_axis: int) -> jax.Array:
    """Dense bool mask of a pair of blocks, [queries, keys] or its transpose, in registers.

    Args:
      registers: operations on registers.
      q_mask_ref: int32 [3, queries]; a query that sees no key has segment -1 (`hopper`).
      kv_mask_ref: int32 [2, keys].
      q_axis: axis of the queries in the result, 0 or 1.
    """
    queries, keys = q_mask_ref.shape[1], kv_mask_ref.shape[1]
    shape = (queries, keys) if q_axis == 0 else (keys, queries)

    def spread(ref: Ref, row: int, axis: int) -> jax.Array:
        x = registers.load(ref, row, (ROW, COLUMN)[axis])
        return lax.broadcast_in_dim(x, shape, [axis])

    q_segment, low, high = (spread(q_mask_ref, row, q_axis) for row in (SEGMENT, LOW, HIGH))
    kv_segment, position = (spread(kv_mask_ref, row, 1 - q_axis) for row in (SEGMENT, POSITION))
    return (q_segment == kv_segment) & (low <= position) & (position <= high)
