"""The bodies of the attention kernels for GPUs: what a program computes in its loops."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from models.kernels.blocks import CLASS, HIGH, LOG2_E, LOW, POSITION, UNSEEN, Side, mask
from models.kernels.visits import KINDS, PARTIAL


def forward_kernel(
    factor: float, queries: Side, keys: Sequence[Side], splits: int, first: Any, starts: Any,
    other: Any, q_ref: Any, *refs: Any,
) -> None:  # fmt: skip
    """Softmax over the blocks of keys of a block of queries, or of a program's part of them."""
    *sources, mixed_ref, normalizer_ref = refs
    program, head, row = (pl.program_id(axis) for axis in range(3))
    number, split = jax.lax.div(program, splits), jax.lax.rem(program, splits)
    of_keys = row + first[0], head
    q = _rows(q_ref, (row, head), queries, number)
    asked = [_asked(asks, row, queries, number) for asks in sources[2::4]]

    def add(source: int, masked: bool, block: jax.Array, carry: Any) -> Any:
        top, total, mixed = carry
        key_ref, value_ref, _, tells = sources[4 * source : 4 * source + 4]
        key = _rows(key_ref, of_keys, keys[source], block, masked)
        value = _rows(value_ref, of_keys, keys[source], block, masked)
        scores = _product(q, key.T) * factor  # [queries, keys]
        if masked:
            seen = mask(asked[source], _told(tells, row, keys[source], block), 0)
            scores = jnp.where(seen, scores, UNSEEN)
        above = jnp.maximum(top, scores.max(1))
        weights, shrink = jnp.exp2(scores - above[:, None]), jnp.exp2(top - above)
        mixed = mixed * shrink[:, None] + _product(weights.astype(value.dtype), value)
        return above, total * shrink + weights.sum(1), mixed

    carry = (
        jnp.full(queries.block, UNSEEN, jnp.float32),
        jnp.zeros(queries.block, jnp.float32),
        jnp.zeros((queries.block, q.shape[1]), jnp.float32),
    )
    target = row * queries.blocks + number
    top, total, mixed = _loops(starts, other, target, keys, add, carry, split, splits)
    sees = top > UNSEEN  # else it has added up whatever there was
    mixed = jnp.where(sees[:, None], mixed / jnp.where(sees, total, 1.0)[:, None], 0.0)
    normalizer = jnp.where(sees, top + jnp.log2(jnp.where(sees, total, 1.0)), UNSEEN)
    _store(mixed_ref, (split, row, head), queries, number, mixed)
    _store(normalizer_ref, (split, row, head), queries, number, normalizer)


def dq_kernel(
    scale: float, queries: Side, keys: Sequence[Side], starts: Any, other: Any, q_ref: Any,
    cotangent_ref: Any, normalizer_ref: Any, delta_ref: Any, *refs: Any,
) -> None:  # fmt: skip
    """The gradient of a block of queries, over its blocks of keys."""
    *sources, dq_ref = refs
    number, head, row = (pl.program_id(axis) for axis in range(3))
    at = (row, head), queries, number
    q, cotangent = _rows(q_ref, *at), _rows(cotangent_ref, *at)
    normalizer, delta = _rows(normalizer_ref, *at), _rows(delta_ref, *at)
    asked = [_asked(asks, row, queries, number) for asks in sources[2::4]]

    def add(source: int, masked: bool, block: jax.Array, dq: jax.Array) -> jax.Array:
        key_ref, value_ref, _, tells = sources[4 * source : 4 * source + 4]
        key = _rows(key_ref, (row, head), keys[source], block, masked)
        value = _rows(value_ref, (row, head), keys[source], block, masked)
        weights = jnp.exp2(_product(q, key.T) * (scale * LOG2_E) - normalizer[:, None])
        slope = weights * (_product(cotangent, value.T) - delta[:, None])
        if masked:
            seen = mask(asked[source], _told(tells, row, keys[source], block), 0)
            slope = jnp.where(seen, slope, 0.0)
        return dq + _product(slope.astype(key.dtype), key)

    target = row * queries.blocks + number
    dq = _loops(starts, other, target, keys, add, jnp.zeros(q.shape, jnp.float32))
    _store(dq_ref, *at, scale * dq)


def dkeys_kernel(
    scale: float, queries: Side, keys: Side, starts: Any, other: Any, q_ref: Any,
    cotangent_ref: Any, normalizer_ref: Any, delta_ref: Any, key_ref: Any, value_ref: Any,
    asks: Any, tells: Any, dkey_ref: Any, dvalue_ref: Any,
) -> None:  # fmt: skip
    """The gradients of a block of keys and its values, over its blocks of queries."""
    number, head, row = (pl.program_id(axis) for axis in range(3))
    at = (row, head), keys, number
    key, value = _rows(key_ref, *at), _rows(value_ref, *at)
    told = _told(tells, row, keys, number)

    def add(_: int, masked: bool, block: jax.Array, carry: Any) -> Any:
        dkey, dvalue = carry
        there = (row, head), queries, block, masked
        q, cotangent = _rows(q_ref, *there), _rows(cotangent_ref, *there)
        normalizer, delta = _rows(normalizer_ref, *there), _rows(delta_ref, *there)
        scores = _product(key, q.T) * (scale * LOG2_E)  # [keys, queries]
        weights = jnp.exp2(scores - normalizer[None, :])
        slope = weights * (_product(value, cotangent.T) - delta[None, :])
        if masked:
            seen = mask(_asked(asks, row, queries, block), told, 1)
            weights, slope = jnp.where(seen, weights, 0.0), jnp.where(seen, slope, 0.0)
        dvalue = dvalue + _product(weights.astype(cotangent.dtype), cotangent)
        return dkey + _product(slope.astype(q.dtype), q), dvalue

    zeros = jnp.zeros(key.shape, jnp.float32)
    target = row * keys.blocks + number
    dkey, dvalue = _loops(starts, other, target, [queries], add, (zeros, zeros))
    _store(dkey_ref, *at, scale * dkey)
    _store(dvalue_ref, *at, dvalue)


def _loops(
    starts: Any, other: Any, target: jax.Array, sides: Sequence[Side], add: Callable, carry: Any,
    split: jax.Array | int = 0, splits: int = 1,
) -> Any:  # fmt: skip
    """`add(source, masked, block, carry)` on the blocks that the target meets, kind by kind; of
    each kind the `split`th of `splits` parts."""
    kinds = KINDS * len(sides)
    for kind in range(kinds):
        start, stop = starts[target * kinds + kind], starts[target * kinds + kind + 1]
        part = lambda n, start=start, stop=stop: start + jax.lax.div((stop - start) * n, splits)
        source, masked = kind // KINDS, kind % KINDS == PARTIAL

        def step(item: jax.Array, carry: Any, source: int = source, masked: bool = masked) -> Any:
            return add(source, masked, jax.lax.rem(other[item], sides[source].blocks), carry)

        carry = jax.lax.fori_loop(part(split), part(split + 1), step, carry)
    return carry


def _rows(ref: Any, place: tuple, side: Side, number: jax.Array, may_end: bool = True) -> jax.Array:
    """A block of vectors or numbers, with zeros beyond the end of its axis."""
    at = ref.at[(*place, pl.ds(number * side.block, side.block))]
    if not may_end or side.padded == side.length:
        return plgpu.load(at)
    return plgpu.load(at, mask=_within(side, number, ref.shape[len(place) + 1 :]), other=0.0)


def _store(ref: Any, place: tuple, side: Side, number: jax.Array, x: jax.Array) -> None:
    at = ref.at[(*place, pl.ds(number * side.block, side.block))]
    mask = None if side.padded == side.length else _within(side, number, x.shape[1:])
    plgpu.store(at, x.astype(ref.dtype), mask=mask)


def _within(side: Side, number: jax.Array, vector: tuple[int, ...]) -> jax.Array:
    """Which elements of a block lie before the end of its axis."""
    row = number * side.block + jnp.arange(side.block)
    mask = row < side.length
    return jnp.broadcast_to(mask[:, None], (side.block, *vector)) if vector else mask


def _asked(asks: Any, row: jax.Array, queries: Side, number: jax.Array) -> list[jax.Array]:
    """Class, low and high of a block of queries."""
    at = pl.ds(number * queries.block, queries.block)
    return [asks[row, n, at] for n in (CLASS, LOW, HIGH)]


def _told(tells: Any, row: jax.Array, keys: Side, number: jax.Array) -> list[jax.Array]:
    """Class and position of a block of keys."""
    at = pl.ds(number * keys.block, keys.block)
    return [tells[row, n, at] for n in (CLASS, POSITION)]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of two matrices, in float32; exact for float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return plgpu.dot(a, b, precision=precision)
