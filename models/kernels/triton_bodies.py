"""The bodies of the attention kernels for GPUs (Pallas, Triton).

Shapes: B rows of the batch, H heads of keys, R queries and S keys of a head of keys, d numbers of a
head. All refs are whole arrays in device memory; a program loads the blocks that it needs. Names
and equations are those of FlashAttention-2 (`models.kernels.attention`): m_i is the running maximum
of a row of scores, l_i the running sum of their exponentials, acc the unnormalized output.

A work list comes as two refs (`models.kernels.visits.Worklist`): entries starts_ref[i] …
starts_ref[i + 1] - 1 of other_ref are the blocks to visit for one target block, source and kind
(fully visible, or partially and so with a mask).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from models.kernels.blocks import (
    HIGH,
    LOG2_E,
    LOW,
    MASK_VALUE,
    POSITION,
    SEGMENT,
    BlockedAxis,
    Ref,
    block_mask,
)
from models.kernels.visits import KINDS, PARTIAL


def forward_kernel(
    first_row_ref: Ref,
    starts_ref: Ref,
    other_ref: Ref,
    q_ref: Ref,
    *refs: Ref,
    log2_scale: float,
    q_axis: BlockedAxis,
    kv_axes: Sequence[BlockedAxis],
    splits: int,
) -> None:
    """Compute O and the log-sum-exp of one query block (FlashAttention-2, Algorithm 1).

    Grid: (query blocks · splits, H, B). Programs of the same query block visit disjoint parts of
    its work list.

    Args:
      first_row_ref: int32 [1], row of the sources that belongs to row 0 of the batch.
      starts_ref: int32 [B · query blocks · KINDS · sources + 1], work list by query block.
      other_ref: int32 [E], key blocks of the work list, numbered through the batch.
      q_ref: [B, H, R, d].
      *refs: for each source k_ref and v_ref, [rows, H, S, d] with at least first_row + B rows,
        q_mask_ref, int32 [B, 3, R padded], and kv_mask_ref, int32 [B, 2, S padded]; then the
        results out_ref, [splits, B, H, R, d] in the dtype of q (float32 if splits > 1), and
        lse_ref, float32 [splits, B, H, R], base 2.
      log2_scale: scale of the scores times log2(e).
      q_axis: the R queries in blocks.
      kv_axes: the S keys of each source in blocks.
      splits: programs that share a query block.
    """
    *source_refs, out_ref, lse_ref = refs
    program, head, row = (pl.program_id(axis) for axis in range(3))
    q_block, split = jax.lax.div(program, splits), jax.lax.rem(program, splits)
    kv_index = row + first_row_ref[0], head
    q = _load(q_ref, (row, head), q_axis, q_block)
    q_rows = [_load_q_mask(q_mask_ref, row, q_axis, q_block) for q_mask_ref in source_refs[2::4]]

    def visit(source: int, masked: bool, kv_block: jax.Array, carry: Any) -> Any:
        m_i, l_i, acc = carry
        k_ref, v_ref, _, kv_mask_ref = source_refs[4 * source : 4 * source + 4]
        k = _load(k_ref, kv_index, kv_axes[source], kv_block, masked)
        v = _load(v_ref, kv_index, kv_axes[source], kv_block, masked)
        s = _dot(q, k.T) * log2_scale  # [queries, keys]
        if masked:
            kv_rows = _load_kv_mask(kv_mask_ref, row, kv_axes[source], kv_block)
            s = jnp.where(block_mask(q_rows[source], kv_rows, 0), s, MASK_VALUE)
        m_next = jnp.maximum(m_i, s.max(1))
        p, alpha = jnp.exp2(s - m_next[:, None]), jnp.exp2(m_i - m_next)
        acc = acc * alpha[:, None] + _dot(p.astype(v.dtype), v)
        return m_next, l_i * alpha + p.sum(1), acc

    carry = (
        jnp.full(q_axis.block, MASK_VALUE, jnp.float32),
        jnp.zeros(q_axis.block, jnp.float32),
        jnp.zeros((q_axis.block, q.shape[1]), jnp.float32),
    )
    target = row * q_axis.blocks + q_block
    m_i, l_i, acc = _visit_blocks(
        starts_ref, other_ref, target, kv_axes, visit, carry, split, splits
    )
    sees = m_i > MASK_VALUE  # else l_i and acc are sums over masked keys
    out = jnp.where(sees[:, None], acc / jnp.where(sees, l_i, 1.0)[:, None], 0.0)
    lse = jnp.where(sees, m_i + jnp.log2(jnp.where(sees, l_i, 1.0)), MASK_VALUE)
    _store(out_ref, (split, row, head), q_axis, q_block, out)
    _store(lse_ref, (split, row, head), q_axis, q_block, lse)


def dq_kernel(
    starts_ref: Ref,
    other_ref: Ref,
    q_ref: Ref,
    do_ref: Ref,
    lse_ref: Ref,
    delta_ref: Ref,
    *refs: Ref,
    scale: float,
    q_axis: BlockedAxis,
    kv_axes: Sequence[BlockedAxis],
) -> None:
    """Compute dQ of one query block (FlashAttention-2, Algorithm 2): dQ = scale · dS K.

    Grid: (query blocks, H, B).

    Args:
      starts_ref: int32 [B · query blocks · KINDS · sources + 1], work list by query block.
      other_ref: int32 [E], key blocks of the work list, numbered through the batch.
      q_ref: [B, H, R, d].
      do_ref: gradient of the output, [B, H, R, d] in the dtype of q.
      lse_ref: base-2 log-sum-exp of the forward pass, float32 [B, H, R].
      delta_ref: rowsum(dO ∘ O), float32 [B, H, R].
      *refs: for each source k_ref and v_ref, [B, H, S, d], q_mask_ref, int32 [B, 3, R padded], and
        kv_mask_ref, int32 [B, 2, S padded]; then the result dq_ref, [B, H, R, d] in the dtype of q.
      scale: scale of the scores.
      q_axis: the R queries in blocks.
      kv_axes: the S keys of each source in blocks.
    """
    *source_refs, dq_ref = refs
    q_block, head, row = (pl.program_id(axis) for axis in range(3))
    target_index = (row, head), q_axis, q_block
    q, do = _load(q_ref, *target_index), _load(do_ref, *target_index)
    lse, delta = _load(lse_ref, *target_index), _load(delta_ref, *target_index)
    q_rows = [_load_q_mask(q_mask_ref, row, q_axis, q_block) for q_mask_ref in source_refs[2::4]]

    def visit(source: int, masked: bool, kv_block: jax.Array, dq: jax.Array) -> jax.Array:
        k_ref, v_ref, _, kv_mask_ref = source_refs[4 * source : 4 * source + 4]
        k = _load(k_ref, (row, head), kv_axes[source], kv_block, masked)
        v = _load(v_ref, (row, head), kv_axes[source], kv_block, masked)
        p = jnp.exp2(_dot(q, k.T) * (scale * LOG2_E) - lse[:, None])
        ds = p * (_dot(do, v.T) - delta[:, None])
        if masked:
            kv_rows = _load_kv_mask(kv_mask_ref, row, kv_axes[source], kv_block)
            ds = jnp.where(block_mask(q_rows[source], kv_rows, 0), ds, 0.0)
        return dq + _dot(ds.astype(k.dtype), k)

    target = row * q_axis.blocks + q_block
    zeros = jnp.zeros(q.shape, jnp.float32)
    dq = _visit_blocks(starts_ref, other_ref, target, kv_axes, visit, zeros)
    _store(dq_ref, *target_index, scale * dq)


def dkv_kernel(
    starts_ref: Ref,
    other_ref: Ref,
    q_ref: Ref,
    do_ref: Ref,
    lse_ref: Ref,
    delta_ref: Ref,
    k_ref: Ref,
    v_ref: Ref,
    q_mask_ref: Ref,
    kv_mask_ref: Ref,
    dk_ref: Ref,
    dv_ref: Ref,
    *,
    scale: float,
    q_axis: BlockedAxis,
    kv_axis: BlockedAxis,
) -> None:
    """Compute dK and dV of one key block of one source (FlashAttention-2, Algorithm 2).

    dK = scale · dSᵀ Q and dV = Pᵀ dO. The queries of all branches that see the key block are summed
    in the order of their blocks. Grid: (key blocks, H, B).

    Args:
      starts_ref: int32 [B · key blocks · KINDS + 1], work list by key block.
      other_ref: int32 [E], query blocks of the work list, numbered through the batch.
      q_ref: [B, H, R, d].
      do_ref: gradient of the output, [B, H, R, d] in the dtype of q.
      lse_ref: base-2 log-sum-exp of the forward pass, float32 [B, H, R].
      delta_ref: rowsum(dO ∘ O), float32 [B, H, R].
      k_ref: [B, H, S, d].
      v_ref: [B, H, S, d].
      q_mask_ref: int32 [B, 3, R padded].
      kv_mask_ref: int32 [B, 2, S padded].
      dk_ref: result, as k_ref.
      dv_ref: result, as v_ref.
      scale: scale of the scores.
      q_axis: the R queries in blocks.
      kv_axis: the S keys in blocks.
    """
    kv_block, head, row = (pl.program_id(axis) for axis in range(3))
    target_index = (row, head), kv_axis, kv_block
    k, v = _load(k_ref, *target_index), _load(v_ref, *target_index)
    kv_rows = _load_kv_mask(kv_mask_ref, row, kv_axis, kv_block)

    def visit(_: int, masked: bool, q_block: jax.Array, carry: Any) -> Any:
        dk, dv = carry
        q_index = (row, head), q_axis, q_block, masked
        q, do = _load(q_ref, *q_index), _load(do_ref, *q_index)
        lse, delta = _load(lse_ref, *q_index), _load(delta_ref, *q_index)
        s = _dot(k, q.T) * (scale * LOG2_E)  # [keys, queries]
        p = jnp.exp2(s - lse[None, :])
        ds = p * (_dot(v, do.T) - delta[None, :])
        if masked:
            visible = block_mask(_load_q_mask(q_mask_ref, row, q_axis, q_block), kv_rows, 1)
            p, ds = jnp.where(visible, p, 0.0), jnp.where(visible, ds, 0.0)
        dv = dv + _dot(p.astype(do.dtype), do)
        return dk + _dot(ds.astype(q.dtype), q), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    target = row * kv_axis.blocks + kv_block
    dk, dv = _visit_blocks(starts_ref, other_ref, target, [q_axis], visit, (zeros, zeros))
    _store(dk_ref, *target_index, scale * dk)
    _store(dv_ref, *target_index, dv)


def _visit_blocks(
    starts_ref: Ref,
    other_ref: Ref,
    target: jax.Array,
    axes: Sequence[BlockedAxis],
    visit: Callable,
    carry: Any,
    split: jax.Array | int = 0,
    splits: int = 1,
) -> Any:
    """Fold `visit(source, masked, block, carry)` over the entries of a target block.

    Sources follow one another, and within a source fully visible blocks precede the others.

    Args:
      starts_ref: bounds of the work list.
      other_ref: its blocks.
      target: the target block, numbered through the batch.
      axes: axis of the blocks to visit, for each source.
      visit: the body of the loop.
      carry: its initial carry.
      split: visit only this part of the entries of each kind …
      splits: … of so many equal parts.
    """
    kinds = KINDS * len(axes)
    for kind in range(kinds):
        start, stop = starts_ref[target * kinds + kind], starts_ref[target * kinds + kind + 1]
        bound = lambda n, start=start, stop=stop: start + jax.lax.div((stop - start) * n, splits)
        source, masked = kind // KINDS, kind % KINDS == PARTIAL

        def body(entry: jax.Array, carry: Any, source: int = source, masked: bool = masked) -> Any:
            return visit(source, masked, jax.lax.rem(other_ref[entry], axes[source].blocks), carry)

        carry = jax.lax.fori_loop(bound(split), bound(split + 1), body, carry)
    return carry


def _load(
    ref: Ref, index: tuple, axis: BlockedAxis, block: jax.Array, may_overhang: bool = True
) -> jax.Array:
    """Load a block [block, d] or [block], with zeros past the end of the axis."""
    view = ref.at[(*index, pl.ds(block * axis.block, axis.block))]
    if not may_overhang or axis.padded == axis.length:
        return plgpu.load(view)
    return plgpu.load(view, mask=_in_bounds(axis, block, ref.shape[len(index) + 1 :]), other=0.0)


def _store(ref: Ref, index: tuple, axis: BlockedAxis, block: jax.Array, x: jax.Array) -> None:
    """Store a block, without what is past the end of the axis."""
    view = ref.at[(*index, pl.ds(block * axis.block, axis.block))]
    mask = None if axis.padded == axis.length else _in_bounds(axis, block, x.shape[1:])
    plgpu.store(view, x.astype(ref.dtype), mask=mask)


def _in_bounds(axis: BlockedAxis, block: jax.Array, inner: tuple[int, ...]) -> jax.Array:
    """Bool [block, *inner]: which elements of a block precede the end of the axis."""
    index = block * axis.block + jnp.arange(axis.block)
    mask = index < axis.length
    return jnp.broadcast_to(mask[:, None], (axis.block, *inner)) if inner else mask


def _load_q_mask(
    q_mask_ref: Ref, row: jax.Array, axis: BlockedAxis, block: jax.Array
) -> list[jax.Array]:
    """Load segment, low and high of a query block, int32 [block] each."""
    span = pl.ds(block * axis.block, axis.block)
    return [q_mask_ref[row, n, span] for n in (SEGMENT, LOW, HIGH)]


def _load_kv_mask(
    kv_mask_ref: Ref, row: jax.Array, axis: BlockedAxis, block: jax.Array
) -> list[jax.Array]:
    """Load segment and position of a key block, int32 [block] each."""
    span = pl.ds(block * axis.block, axis.block)
    return [kv_mask_ref[row, n, span] for n in (SEGMENT, POSITION)]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product with float32 accumulation; exact products for float32 inputs."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return plgpu.dot(a, b, precision=precision)
