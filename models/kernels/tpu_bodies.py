"""The bodies of the attention kernels for TPUs (Pallas, Mosaic): one step of the grid each.

Refs are blocks in VMEM, chosen by the block specs of `tpu_grid.WorklistGrid`: block_q queries or
block_kv keys of one row of the batch and one head of keys, d numbers of a head. Names and equations
are those of FlashAttention-2 (`models.kernels.attention`): m is the running maximum of a row of
scores, l the running sum of their exponentials, acc the unnormalized output.

The grid is (H, steps). A step is one entry of a work list: a target block, whose result is being
computed, and a block on the other side. The entries of a target are consecutive; scratch memory
carries its sums from the first to the last of them. `scalar_refs` are the prefetched scalars
(`tpu_grid.Steps`): first_row int32 [1], kind [E], target [E], then for each other axis the block
that is in VMEM at a step, [E]. `FULL` pairs of blocks are computed without a mask, `PARTIAL` ones
with it; a step of kind -1 only writes the (zero) result of a target without visible pairs.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

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

LANES = 128


def forward_kernel(
    log2_scale: float,
    kv_axes: Sequence[BlockedAxis],
    scalar_refs: Sequence[Ref],
    in_refs: Sequence[Ref],
    out_refs: Sequence[Ref],
    scratch_refs: Sequence[Ref],
) -> None:
    """Compute O and the log-sum-exp of a query block (FlashAttention-2, Algorithm 1).

    Args:
      log2_scale: scale of the scores times log2(e).
      kv_axes: the keys of each source in blocks.
      scalar_refs: see the module; targets are query blocks.
      in_refs: q_ref [block_q, d]; then for each source k_ref and v_ref, [block_kv, d], q_mask_ref,
        int32 [8, block_q], of which 3 rows are used, and kv_mask_ref, int32 [8, block_kv], 2 rows.
      out_refs: out_ref [block_q, d] in the dtype of q, and lse_ref, float32 [1, block_q], base 2.
      scratch_refs: m_ref and l_ref, float32 [block_q, LANES] with equal lanes, and acc_ref, float32
        [block_q, d].
    """
    q_ref, *source_refs = in_refs
    out_ref, lse_ref = out_refs
    m_ref, l_ref, acc_ref = scratch_refs
    kind, blocks, is_first, is_last = _step(scalar_refs)

    @pl.when(is_first)
    def _init() -> None:
        m_ref[...] = jnp.full_like(m_ref, MASK_VALUE)
        l_ref[...] = jnp.zeros_like(l_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    def visit(source: int, masked: bool) -> None:
        k_ref, v_ref, q_mask_ref, kv_mask_ref = source_refs[4 * source : 4 * source + 4]
        s = _dot(q_ref[...], k_ref[...], (1, 1)) * log2_scale  # [queries, keys]
        v = v_ref[...]
        if masked:
            s = jnp.where(_block_mask(q_mask_ref, kv_mask_ref, 0), s, MASK_VALUE)
            v = _zero_overhang(kv_axes[source], v, blocks[source])
        m_prev = m_ref[:, :1]
        m_next = jnp.maximum(m_prev, s.max(axis=1, keepdims=True))
        p, alpha = jnp.exp2(s - m_next), jnp.exp2(m_prev - m_next)
        l_next = alpha * l_ref[:, :1] + p.sum(axis=1, keepdims=True)
        m_ref[...] = jnp.broadcast_to(m_next, m_ref.shape)
        l_ref[...] = jnp.broadcast_to(l_next, l_ref.shape)
        acc_ref[...] = alpha * acc_ref[...] + _dot(p.astype(v.dtype), v, (1, 0))

    _dispatch(kind, len(kv_axes), visit)

    @pl.when(is_last)
    def _write() -> None:
        m, l_sum = m_ref[...], l_ref[...]
        sees = m > MASK_VALUE  # else l and acc are sums over masked keys
        lse = jnp.where(sees, m + jnp.log2(l_sum), 0.0)
        lse_ref[...] = lse.T[:1]
        out = jnp.where(sees[:, :1], acc_ref[...] / l_sum[:, :1], 0.0)
        out_ref[...] = out.astype(out_ref.dtype)


def dq_kernel(
    scale: float,
    kv_axes: Sequence[BlockedAxis],
    scalar_refs: Sequence[Ref],
    in_refs: Sequence[Ref],
    out_refs: Sequence[Ref],
    scratch_refs: Sequence[Ref],
) -> None:
    """Compute dQ of a query block (FlashAttention-2, Algorithm 2): dQ = scale · dS K.

    Args:
      scale: scale of the scores.
      kv_axes: the keys of each source in blocks.
      scalar_refs: see the module; targets are query blocks.
      in_refs: q_ref and do_ref, [block_q, d]; lse_ref (base 2) and delta_ref, rowsum(dO ∘ O),
        float32 [1, block_q]; then for each source k_ref, v_ref, q_mask_ref and kv_mask_ref, as in
        `forward_kernel`.
      out_refs: dq_ref [block_q, d] in the dtype of q.
      scratch_refs: lse_column_ref and delta_column_ref, float32 [block_q, LANES] with equal lanes,
        and acc_ref, float32 [block_q, d].
    """
    q_ref, do_ref, lse_ref, delta_ref, *source_refs = in_refs
    (dq_ref,) = out_refs
    lse_column_ref, delta_column_ref, acc_ref = scratch_refs
    kind, blocks, is_first, is_last = _step(scalar_refs)

    @pl.when(is_first)
    def _init() -> None:
        for row_ref, column_ref in ((lse_ref, lse_column_ref), (delta_ref, delta_column_ref)):
            column_ref[...] = jnp.broadcast_to(row_ref[...], (LANES, row_ref.shape[1])).T
        acc_ref[...] = jnp.zeros_like(acc_ref)

    def visit(source: int, masked: bool) -> None:
        k_ref, v_ref, q_mask_ref, kv_mask_ref = source_refs[4 * source : 4 * source + 4]
        k, v = k_ref[...], v_ref[...]
        s = _dot(q_ref[...], k, (1, 1)) * (scale * LOG2_E)
        p = jnp.exp2(s - lse_column_ref[:, :1])
        ds = p * (_dot(do_ref[...], v, (1, 1)) - delta_column_ref[:, :1])
        if masked:
            ds = jnp.where(_block_mask(q_mask_ref, kv_mask_ref, 0), ds, 0.0)
            k = _zero_overhang(kv_axes[source], k, blocks[source])
        acc_ref[...] += _dot(ds.astype(k.dtype), k, (1, 0))

    _dispatch(kind, len(kv_axes), visit)

    @pl.when(is_last)
    def _write() -> None:
        dq_ref[...] = (scale * acc_ref[...]).astype(dq_ref.dtype)


def dkv_kernel(
    scale: float,
    q_axis: BlockedAxis,
    scalar_refs: Sequence[Ref],
    in_refs: Sequence[Ref],
    out_refs: Sequence[Ref],
    scratch_refs: Sequence[Ref],
) -> None:
    """Compute dK and dV of a key block of one source (FlashAttention-2, Algorithm 2).

    dK = scale · dSᵀ Q and dV = Pᵀ dO. The queries of all branches that see the key block are summed
    in the order of their blocks.

    Args:
      scale: scale of the scores.
      q_axis: the queries in blocks.
      scalar_refs: see the module; targets are key blocks.
      in_refs: q_ref and do_ref, [block_q, d]; lse_ref (base 2) and delta_ref, rowsum(dO ∘ O),
        float32 [1, block_q]; k_ref and v_ref, [block_kv, d]; q_mask_ref, int32 [8, block_q], of
        which 3 rows are used, and kv_mask_ref, int32 [8, block_kv], 2 rows.
      out_refs: dk_ref and dv_ref, [block_kv, d] in the dtype of k and v.
      scratch_refs: dk_acc_ref and dv_acc_ref, float32 [block_kv, d].
    """
    q_ref, do_ref, lse_ref, delta_ref, k_ref, v_ref, q_mask_ref, kv_mask_ref = in_refs
    kind, blocks, is_first, is_last = _step(scalar_refs)

    @pl.when(is_first)
    def _init() -> None:
        for acc_ref in scratch_refs:
            acc_ref[...] = jnp.zeros_like(acc_ref)

    def visit(_: int, masked: bool) -> None:
        q, do = q_ref[...], do_ref[...]
        if masked:
            q, do = (_zero_overhang(q_axis, x, blocks[0]) for x in (q, do))
        s = _dot(k_ref[...], q, (1, 1)) * (scale * LOG2_E)  # [keys, queries]
        p = jnp.exp2(s - lse_ref[...])
        if masked:
            visible = _block_mask(q_mask_ref, kv_mask_ref, 1)
            p = jnp.where(visible, p, 0.0)
        ds = p * (_dot(v_ref[...], do, (1, 1)) - delta_ref[...])
        if masked:
            ds = jnp.where(visible, ds, 0.0)
        products = (ds, q), (p, do)
        for acc_ref, (a, b) in zip(scratch_refs, products, strict=True):
            acc_ref[...] += _dot(a.astype(b.dtype), b, (1, 0))

    _dispatch(kind, 1, visit)

    @pl.when(is_last)
    def _write() -> None:
        for ref, acc_ref, factor in zip(out_refs, scratch_refs, (scale, 1.0), strict=True):
            ref[...] = (factor * acc_ref[...]).astype(ref.dtype)


def _step(scalar_refs: Sequence[Ref]) -> tuple[jax.Array, list[jax.Array], jax.Array, jax.Array]:
    """Return the kind of this step, the blocks on the other side that are in VMEM (one for each
    source), and whether the step is the first and the last of its target."""
    _, kind_ref, target_ref, *other_refs = scalar_refs
    step = pl.program_id(1)
    target = target_ref[step]
    is_first = (step == 0) | (target_ref[jnp.maximum(step - 1, 0)] != target)
    kind, others = kind_ref[step], [other_ref[step] for other_ref in other_refs]
    return kind, others, is_first, target_ref[step + 1] != target


def _dispatch(kind: jax.Array, sources: int, visit: Callable[[int, bool], None]) -> None:
    """Call `visit(source, masked)` with the static arguments that the kind of a step stands for."""
    for n in range(KINDS * sources):
        pl.when(kind == n)(functools.partial(visit, n // KINDS, n % KINDS == PARTIAL))


def _zero_overhang(axis: BlockedAxis, x: jax.Array, block: jax.Array) -> jax.Array:
    """Replace rows past the end of the axis by zeros in a block [block, d]; `block` is its number,
    counted through the batch."""
    if axis.padded == axis.length:
        return x
    start = jax.lax.rem(block, axis.blocks) * axis.block
    index = start + jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(index < axis.length, x, jnp.zeros_like(x))


def _block_mask(q_mask_ref: Ref, kv_mask_ref: Ref, q_axis: int) -> jax.Array:
    """`blocks.block_mask` of the mask rows of two blocks."""
    q_rows = [q_mask_ref[n, :] for n in (SEGMENT, LOW, HIGH)]
    kv_rows = [kv_mask_ref[n, :] for n in (SEGMENT, POSITION)]
    return block_mask(q_rows, kv_rows, q_axis)


def _dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Product of two matrices, contracted over an axis of each, with float32 accumulation; exact
    products for float32 inputs."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
