"""The bodies of the attention kernels for TPUs: what a step of a walk computes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from models.kernels.blocks import CLASS, HIGH, LOG2_E, LOW, POSITION, UNSEEN, Side, mask
from models.kernels.visits import KINDS, PARTIAL

LANES = 128


def forward_kernel(
    factor: float, sides: Sequence[Side], scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
    """Softmax over a block of keys after the other, for a block of queries."""
    q_ref, *sources = inputs
    mixed_ref, normalizer_ref = outputs
    top_ref, total_ref, sum_ref = scratch
    kind, number, first, last = _item(scalars)

    @pl.when(first)
    def _start() -> None:
        top_ref[...] = jnp.full_like(top_ref, UNSEEN)
        total_ref[...] = jnp.zeros_like(total_ref)
        sum_ref[...] = jnp.zeros_like(sum_ref)

    def add(source: int, masked: bool) -> None:
        key_ref, value_ref, asks, tells = sources[4 * source : 4 * source + 4]
        scores = _product(q_ref[...], key_ref[...], (1, 1)) * factor  # [queries, keys]
        value = value_ref[...]
        if masked:
            scores = jnp.where(_mask(asks, tells, 0), scores, UNSEEN)
            value = _within(sides[source], value, number[source])
        before = top_ref[:, :1]
        top = jnp.maximum(before, scores.max(axis=1, keepdims=True))
        weights, shrink = jnp.exp2(scores - top), jnp.exp2(before - top)
        total = shrink * total_ref[:, :1] + weights.sum(axis=1, keepdims=True)
        top_ref[...] = jnp.broadcast_to(top, top_ref.shape)
        total_ref[...] = jnp.broadcast_to(total, total_ref.shape)
        sum_ref[...] = shrink * sum_ref[...] + _product(weights.astype(value.dtype), value, (1, 0))

    _by_kind(kind, len(sides), add)

    @pl.when(last)
    def _finish() -> None:
        top, total = top_ref[...], total_ref[...]
        sees = top > UNSEEN  # else it has added up whatever there was
        normalizer = jnp.where(sees, top + jnp.log2(total), 0.0)
        normalizer_ref[...] = normalizer.T[:1]
        mixed = jnp.where(sees[:, :1], sum_ref[...] / total[:, :1], 0.0)
        mixed_ref[...] = mixed.astype(mixed_ref.dtype)


def dq_kernel(
    scale: float, sides: Sequence[Side], scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
    """The gradient of a block of queries, over its blocks of keys."""
    q_ref, cotangent_ref, normalizer_row, delta_row, *sources = inputs
    (dq_ref,) = outputs
    normalizer_ref, delta_ref, sum_ref = scratch
    kind, number, first, last = _item(scalars)

    @pl.when(first)
    def _start() -> None:
        for row, column in ((normalizer_row, normalizer_ref), (delta_row, delta_ref)):
            column[...] = jnp.broadcast_to(row[...], (LANES, row.shape[1])).T
        sum_ref[...] = jnp.zeros_like(sum_ref)

    def add(source: int, masked: bool) -> None:
        key_ref, value_ref, asks, tells = sources[4 * source : 4 * source + 4]
        key, value = key_ref[...], value_ref[...]
        scores = _product(q_ref[...], key, (1, 1)) * (scale * LOG2_E)
        weights = jnp.exp2(scores - normalizer_ref[:, :1])
        slope = weights * (_product(cotangent_ref[...], value, (1, 1)) - delta_ref[:, :1])
        if masked:
            slope = jnp.where(_mask(asks, tells, 0), slope, 0.0)
            key = _within(sides[source], key, number[source])
        sum_ref[...] += _product(slope.astype(key.dtype), key, (1, 0))

    _by_kind(kind, len(sides), add)

    @pl.when(last)
    def _finish() -> None:
        dq_ref[...] = (scale * sum_ref[...]).astype(dq_ref.dtype)


def dkeys_kernel(
    scale: float, queries: Side, scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
    """The gradients of a block of keys and its values, over its blocks of queries."""
    q_ref, cotangent_ref, normalizer_ref, delta_ref, key_ref, value_ref, asks, tells = inputs
    kind, number, first, last = _item(scalars)

    @pl.when(first)
    def _start() -> None:
        for ref in scratch:
            ref[...] = jnp.zeros_like(ref)

    def add(_: int, masked: bool) -> None:
        q, cotangent = q_ref[...], cotangent_ref[...]
        if masked:
            q, cotangent = (_within(queries, x, number[0]) for x in (q, cotangent))
        scores = _product(key_ref[...], q, (1, 1)) * (scale * LOG2_E)  # [keys, queries]
        weights = jnp.exp2(scores - normalizer_ref[...])
        if masked:
            seen = _mask(asks, tells, 1)
            weights = jnp.where(seen, weights, 0.0)
        slope = weights * (_product(value_ref[...], cotangent, (1, 1)) - delta_ref[...])
        if masked:
            slope = jnp.where(seen, slope, 0.0)
        sums = (slope, q), (weights, cotangent)
        for ref, (factors, vectors) in zip(scratch, sums, strict=True):
            ref[...] += _product(factors.astype(vectors.dtype), vectors, (1, 0))

    _by_kind(kind, 1, add)

    @pl.when(last)
    def _finish() -> None:
        for ref, sums, factor in zip(outputs, scratch, (scale, 1.0), strict=True):
            ref[...] = (factor * sums[...]).astype(ref.dtype)


def _item(scalars: Any) -> tuple[jax.Array, list[jax.Array], jax.Array, jax.Array]:
    """Of this step: the kind, the other blocks, and whether it is the first and the last of its
    target."""
    _, kind, target, *others = scalars
    item = pl.program_id(1)
    here = target[item]
    first = (item == 0) | (target[jnp.maximum(item - 1, 0)] != here)
    return kind[item], [other[item] for other in others], first, target[item + 1] != here


def _by_kind(kind: jax.Array, sources: int, add: Callable[[int, bool], None]) -> None:
    """`add(source, masked)` as the item asks."""
    for n in range(KINDS * sources):
        pl.when(kind == n)(functools.partial(add, n // KINDS, n % KINDS == PARTIAL))


def _within(side: Side, x: jax.Array, number: jax.Array) -> jax.Array:
    """A block [block, d] of the batch, with zeros beyond the end of its axis."""
    if side.padded == side.length:
        return x
    start = jax.lax.rem(number, side.blocks) * side.block
    row = start + jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(row < side.length, x, jnp.zeros_like(x))


def _mask(asks: Any, tells: Any, axis: int) -> jax.Array:
    """`blocks.mask` of the integers of two blocks."""
    asked, told = [asks[n, :] for n in (CLASS, LOW, HIGH)], [tells[n, :] for n in (CLASS, POSITION)]
    return mask(asked, told, axis)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Of two matrices, summed over one axis of each, in float32; exact for float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    return jax.lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
