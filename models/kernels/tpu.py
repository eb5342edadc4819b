"""The attention kernels for TPUs (Pallas, Mosaic).

A kernel walks through a worklist of blocks that meet (`visits`): the grid is as long as there is
work, a number on the device, and no step of it is empty. The blocks of the next step are fetched
while one is computed; those that stay are not fetched again.

    forward   of a block of queries: softmax over its blocks of keys, as they come
    dq        the same walk: dq += p · (do·v - delta) · k, with p from the normalizers
    dk, dv    of a block of keys: over the blocks of queries that see it, in their order, so the
              sum over all branches of a trunk has one order, too; scores are [keys, queries] here

Scores are multiplied by scale · log2(e), and exponentials are powers of two. The last block of an
array may reach beyond its end, where there is anything at all: what lies there is replaced by zeros
before it meets a matrix unit, for zero times anything may be no number.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from models.kernels.attention import Source
from models.kernels.blocks import (
    CLASS,
    HIGH,
    LOG2_E,
    LOW,
    POSITION,
    UNSEEN,
    Side,
    asking,
    mask,
    telling,
)
from models.kernels.visits import (
    KINDS,
    PARTIAL,
    Sight,
    Worklist,
    by_keys,
    by_queries,
    meetings,
    pairs_offered,
)

LANES, SUBLANES = 128, 8
SCALARS = 3 * 2**16  # steps' integers at a time: three quarters of a TPU's scalar memory, 1 MiB

Operand = tuple[Any, pl.BlockSpec]  # an array, or the shape of one, and how it is cut


@dataclasses.dataclass(frozen=True)
class TPUKernels:
    """`attention.Kernels` for TPUs.

    Attributes:
      query_block: queries of a block, at most; a multiple of 128.
      key_block: keys of a block, at most; a multiple of 128.
      interpret: as of `pallas_call`.
    """

    query_block: int = 512
    key_block: int = 512
    interpret: Any = False

    def parts(self, sights: Sequence[Sight]) -> int:
        """See `attention.Kernels`. The steps of a walk are scalars that must fit the chip's scalar
        memory."""
        queries = self._queries(sights[0].queries)
        keys = [self._keys(sight.keys) for sight in sights]
        offered = sum(
            pairs_offered(sight, queries.block, side.block)
            for sight, side in zip(sights, keys, strict=True)
        )
        steps = offered + max(side.blocks for side in (queries, *keys))
        batch, rows = len(sights[0].low), SCALARS // ((2 + len(sights)) * steps)
        if not rows:
            raise ValueError(
                f"a row of {sights[0].queries} queries and {sum(s.keys for s in sights)} keys has "
                "too many blocks for a TPU's scalar memory; model.attention='xla' has no such limit"
            )
        return next(n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= rows)

    def worklists(self, sights: Sequence[Sight], heads: int) -> "_Worklists":
        """See `attention.Kernels`."""
        queries = self._queries(sights[0].queries)
        keys = [self._keys(sight.keys) for sight in sights]
        met = [meetings(s, queries.block, k.block) for s, k in zip(sights, keys, strict=True)]
        return _Worklists(
            by_queries=_Steps.of(by_queries(met, idle=True), len(sights)),
            by_keys=[_Steps.of(by_keys(m, idle=True), 1) for m in met],
            asks=[_integers(queries.pad(asking(sight))) for sight in sights],
            tells=[_integers(k.pad(telling(s))) for s, k in zip(sights, keys, strict=True)],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first: jax.Array,
        lists: "_Worklists",
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`."""
        walk = self._by_queries(q, sources, lists, first)
        queries = walk.sides[0]
        normalizers = jax.ShapeDtypeStruct((*q.shape[:2], 1, queries.padded), jnp.float32)
        mixed, normalizer = walk.call(
            functools.partial(_forward_kernel, scale * LOG2_E, walk.sides[1:]),
            [walk.vectors(0, q), *walk.of_sources(sources, lists)],
            [walk.vectors(0, q), walk.numbers(0, normalizers)],
            [(queries.block, LANES), (queries.block, LANES), (queries.block, q.shape[-1])],
        )
        return mixed, normalizer[:, :, 0, : queries.length]

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        lists: "_Worklists",
        scale: float,
        normalizer: jax.Array,
        delta: jax.Array,
        cotangent: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """See `attention.Kernels`."""
        queries = self._queries(q.shape[2])
        per_query = [queries.pad(x[:, :, None]) for x in (normalizer, delta)]

        def of_queries(walk: "_Walk", side: int) -> list[Operand]:
            vectors = [walk.vectors(side, x) for x in (q, cotangent)]
            return vectors + [walk.numbers(side, x) for x in per_query]

        walk = self._by_queries(q, sources, lists)
        (dq,) = walk.call(
            functools.partial(_dq_kernel, scale, walk.sides[1:]),
            [*of_queries(walk, 0), *walk.of_sources(sources, lists)],
            [walk.vectors(0, q)],
            [(queries.block, LANES), (queries.block, LANES), (queries.block, q.shape[-1])],
        )
        slopes = []
        for n, source in enumerate(sources):
            sides = self._keys(source[0].shape[2]), queries
            walk = _Walk(lists.by_keys[n], sides, q.shape[1], jnp.int32(0), self.interpret)
            of_keys = [walk.vectors(0, x) for x in source]
            integers = [walk.integers(1, lists.asks[n]), walk.integers(0, lists.tells[n])]
            dkey, dvalue = walk.call(
                functools.partial(_dkeys_kernel, scale, queries),
                [*of_queries(walk, 1), *of_keys, *integers],
                of_keys,
                [(sides[0].block, q.shape[-1])] * 2,
            )
            slopes.append((dkey, dvalue))
        return dq, slopes

    def _queries(self, length: int) -> Side:
        return _side(length, self.query_block)

    def _keys(self, length: int) -> Side:
        return _side(length, self.key_block)

    def _by_queries(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        lists: "_Worklists",
        first: jax.Array | int = 0,
    ) -> "_Walk":
        sides = self._queries(q.shape[2]), *(self._keys(key.shape[2]) for key, _ in sources)
        return _Walk(lists.by_queries, sides, q.shape[1], jnp.int32(first), self.interpret)


def _side(length: int, limit: int) -> Side:
    return Side(length, limit if length > limit else -(-length // 16) * 16)


def _integers(x: jax.Array) -> jax.Array:
    """[B, rows, n] as [B, 1, 8, n]."""
    return jnp.pad(x[:, None], [(0, 0), (0, 0), (0, SUBLANES - x.shape[1]), (0, 0)])


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scalars", "total"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class _Steps:
    """A worklist as the steps of a grid.

    Attributes:
      scalars: kind of every step, its target, and per other side the block that is at hand then.
      total: [], number of steps.
    """

    scalars: Sequence[jax.Array]
    total: jax.Array

    @classmethod
    def of(cls, work: Worklist, sources: int) -> "_Steps":
        step = jnp.arange(len(work.kind))
        scalars = [work.kind, work.target]
        for source in range(sources):  # a step with another source leaves a block in its place
            latest = jax.lax.cummax(jnp.where(work.kind // KINDS == source, step, -1))
            scalars.append(jnp.where(latest < 0, 0, work.other[latest]))  # at first, any block
        return cls(scalars, work.total)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["by_queries", "by_keys", "asks", "tells"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class _Worklists:
    """Steps of the walks, and integers [B, 1, 8, n] of queries and of keys, for each source."""

    by_queries: _Steps
    by_keys: list[_Steps]
    asks: list[jax.Array]
    tells: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class _Walk:
    """A grid of heads and of steps.

    Attributes:
      steps: of a worklist.
      sides: of the targets, and the other ones.
      heads: H.
      first: row of the sources that belongs to the first of the batch, [].
      interpret: as of `pallas_call`.
    """

    steps: _Steps
    sides: Sequence[Side]
    heads: int
    first: jax.Array
    interpret: Any

    def vectors(self, side: int, x: Any, moved: bool = False) -> Operand:
        """[B, H, n, d], cut along n; `moved`, it begins with row `first`."""
        shape = None, None, self.sides[side].block, x.shape[3]
        return self._operand(side, x, shape, 2, moved)

    def numbers(self, side: int, x: Any) -> Operand:
        """[B, H, 1, n] in whole blocks, cut along n."""
        return self._operand(side, x, (None, None, 1, self.sides[side].block), 3)

    def integers(self, side: int, x: jax.Array) -> Operand:
        """[B, 1, 8, n] in whole blocks, cut along n."""
        return self._operand(side, x, (None, None, SUBLANES, self.sides[side].block), 3)

    def of_sources(self, sources: Sequence[Source], lists: _Worklists) -> list[Operand]:
        """Keys, values and who sees whom, one source after the other."""
        found = []
        for n, (key, value) in enumerate(sources):
            found += [self.vectors(n + 1, x, moved=True) for x in (key, value)]
            found += [self.integers(0, lists.asks[n]), self.integers(n + 1, lists.tells[n])]
        return found

    def _operand(self, side: int, x: Any, shape: tuple, axis: int, moved: bool = False) -> Operand:
        blocks = self.sides[side].blocks

        def index(head: Any, item: Any, first: Any, kind: Any, *held: Any) -> tuple:
            row, block = (of(held[side][item], blocks) for of in (jax.lax.div, jax.lax.rem))
            row = row + first[0] if moved else row
            place = [row, head if x.shape[1] == self.heads else 0, 0, 0]
            place[axis] = block
            return tuple(place)

        return x, pl.BlockSpec(shape, index)

    def call(
        self,
        kernel: functools.partial,
        inputs: Sequence[Operand],
        outputs: Sequence[Operand],
        scratch: Sequence[tuple[int, int]],
    ) -> Sequence[jax.Array]:
        """Results of `kernel(scalars, inputs, outputs, scratch)`, which are lists of refs."""
        scalars = [self.first[None], *self.steps.scalars]
        counts = len(scalars), len(inputs), len(outputs)
        cuts = [sum(counts[: n + 1]) for n in range(3)]

        def run(*refs: Any) -> None:
            kernel(
                refs[: cuts[0]], refs[cuts[0] : cuts[1]], refs[cuts[1] : cuts[2]], refs[cuts[2] :]
            )

        return pl.pallas_call(
            run,
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outputs],
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=len(scalars),
                grid=(self.heads, self.steps.total),
                in_specs=[spec for _, spec in inputs],
                out_specs=[spec for _, spec in outputs],
                scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
            ),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            interpret=self.interpret,
            name="attention" + kernel.func.__name__.removesuffix("_kernel"),
        )(*scalars, *[x for x, _ in inputs])


def _forward_kernel(
    factor: float, sides: Sequence[Side], scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
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


def _dq_kernel(
    scale: float, sides: Sequence[Side], scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
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


def _dkeys_kernel(
    scale: float, queries: Side, scalars: Any, inputs: Any, outputs: Any, scratch: Any
) -> None:
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
