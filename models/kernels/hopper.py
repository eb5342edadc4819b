"""The attention kernels for Hopper GPUs, H100 and H200 (Pallas, Mosaic GPU).

A program has one block of queries (forward, dq) or of keys (dk, dv), 64 rows for each of two
warpgroups that compute, and walks through the blocks on the other side that it meets (`visits`). A
third warpgroup fetches them with the copy engine (TMA), up to `stages` ahead, and hands them over
with barriers: `ready` once a buffer is full, `free` once both others have read it.

    forward   softmax over the blocks of keys as they come; the two warpgroups take turns, so that
              one multiplies matrices (wgmma) while the other computes exponentials
    dq        the same walk: dq += p · (do·v - delta) · k, with p from the normalizers
    dk, dv    of a block of keys: over the blocks of queries that see it, in their order, so the
              sum over all branches of a trunk has one order, too; scores are [keys, queries] here

Pairs of blocks that are seen whole come first and have no mask; those of the others is made from
the integers of both sides. The copy engine reads zeros beyond the end of an array and writes
nothing there. Scores are multiplied by scale · log2(e), and exponentials are powers of two.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from models.kernels.attention import Source
from models.kernels.visits import KINDS, PARTIAL, Sight, Worklist, by_keys, by_queries, meetings

WARPGROUPS, ROWS = 2, 64  # that compute, and rows of a target that each of them has
BLOCK = WARPGROUPS * ROWS
REGISTERS, FETCHER_REGISTERS = 232, 40  # of a thread that computes, and of one that fetches
UNSEEN = -1e30  # a score; finite, for the sake of differences
LOG2_E = math.log2(math.e)
ASKED = 3  # integers of a query for a source: class, low, high
TOLD = 2  # of a key: class, position
TILES = gpu.TilingTransform((8, 64)), gpu.SwizzleTransform(128)  # as wgmma reads 16-bit matrices
MATRIX = gpu.Layout.WGMMA  # of a product, in registers
ROW, COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)  # of one number per row, or per column


@dataclasses.dataclass(frozen=True)
class HopperKernels:
    """`attention.Kernels` for Hopper GPUs: bfloat16 or float16, heads of 64 or 128, and of 256 in
    the forward pass.

    Attributes:
      forward_block: keys that come at a time, at most; a multiple of 64.
      backward_block: keys (dq) or queries (dk, dv) that come at a time; a multiple of 64.
      stages: blocks that are on their way or being read, at least 1.
      interpret: parameters of Pallas' interpret mode, or False. It knows neither layouts of
        registers nor products of them, and its copies must not reach beyond the end of an array:
        there, products are plain ones, and arrays are filled up to whole blocks.
    """

    forward_block: int = 128
    backward_block: int = 64
    stages: int = 2
    interpret: Any = False

    def forward(
        self, q: jax.Array, sources: Sequence[Source], sights: Sequence[Sight], scale: float
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`.

        Raises:
          ValueError: a dtype or a head dimension that these kernels do not serve.
        """
        _check(q, (64, 128, 256))
        block = min(self.forward_block, 128 * 128 // q.shape[3])  # as registers allow
        walk = self._by_queries(q, sources, sights, block)
        length = walk.sides[0].blocks * BLOCK
        normalizers = jax.ShapeDtypeStruct((*q.shape[:2], 1, length), jnp.float32)
        mixed, normalizer = walk.call(
            functools.partial(_forward_kernel, scale * LOG2_E),
            fixed=[walk.vectors(0, q), walk.asking(0, sights)],
            coming=walk.sources(sources, sights),
            results=[walk.vectors(0, q), walk.numbers(0, normalizers)],
        )
        return mixed, normalizer[:, :, 0, : q.shape[2]]

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        sights: Sequence[Sight],
        scale: float,
        normalizer: jax.Array,
        delta: jax.Array,
        cotangent: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """See `attention.Kernels`.

        Raises:
          ValueError: as `forward`; heads of 256 are among what is not served.
        """
        _check(q, (64, 128))
        numbers = jnp.stack([normalizer, delta], axis=2)  # [B, H, 2, R]
        walk = self._by_queries(q, sources, sights, self.backward_block)
        (dq,) = walk.call(
            functools.partial(_dq_kernel, scale),
            fixed=[
                *(walk.vectors(0, x) for x in (q, cotangent)),
                walk.numbers(0, numbers),
                walk.asking(0, sights),
            ],
            coming=walk.sources(sources, sights),
            results=[walk.vectors(0, q)],
        )
        slopes = []
        for source, sight in zip(sources, sights, strict=True):
            walk = self._by_keys(q, source, sight)
            queries = [walk.vectors(1, x) for x in (q, cotangent)]
            dkey, dvalue = walk.call(
                functools.partial(_dkeys_kernel, scale),
                fixed=[*(walk.vectors(0, x) for x in source), walk.telling(0, sight)],
                coming=[[[*queries, walk.numbers(1, numbers), walk.asking(1, [sight])]]],
                results=[walk.vectors(0, x) for x in source],
            )
            slopes.append((dkey, dvalue))
        return dq, slopes

    def _by_queries(
        self, q: jax.Array, sources: Sequence[Source], sights: Sequence[Sight], block: int
    ) -> "_Walk":
        keys = [_Side(key.shape[2], block) for key, _ in sources]
        met = [
            meetings(sight, BLOCK, side.block) for sight, side in zip(sights, keys, strict=True)
        ]
        sides = [_Side(q.shape[2], BLOCK), *keys]
        return _Walk(by_queries(met, idle=False), sides, True, self.stages, self.interpret)

    def _by_keys(self, q: jax.Array, source: Source, sight: Sight) -> "_Walk":
        work = by_keys(meetings(sight, self.backward_block, BLOCK), idle=False)
        sides = [_Side(source[0].shape[2], BLOCK), _Side(q.shape[2], self.backward_block)]
        return _Walk(work, sides, False, self.stages, self.interpret)


def _check(q: jax.Array, depths: Sequence[int]) -> None:
    if q.dtype not in (jnp.bfloat16, jnp.float16) or q.shape[3] not in depths:
        raise ValueError(
            f"the kernels for Hopper GPUs serve bfloat16 and float16 with a head dimension of "
            f"{', '.join(map(str, depths))} here, not {q.dtype} with {q.shape[3]}"
        )


@dataclasses.dataclass(frozen=True)
class _Side:
    """An axis of queries or of keys, in blocks."""

    length: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.length // self.block)

    def pad(self, x: jax.Array, axis: int) -> jax.Array:
        """With zeros at the end of an axis, to whole blocks."""
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, self.blocks * self.block - self.length)
        return jnp.pad(x, widths)


@dataclasses.dataclass(frozen=True)
class _Operand:
    """An array of a kernel and how it is cut.

    Attributes:
      array: in the GPU's memory.
      place: (row of the batch, head, start) to the index of a block.
      shape: of a block.
      transforms: of a block in shared memory.
      masked: only pairs of blocks with a mask need it.
    """

    array: Any
    place: Callable[[Any, Any, Any], tuple]
    shape: tuple[int, ...]
    transforms: Sequence[Any] = ()
    masked: bool = False

    def buffer(self, count: int) -> Any:
        """Of so many blocks, in shared memory."""
        shape = (count, *self.shape)
        return gpu.SMEM(shape, self.array.dtype, transforms=self.transforms)


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Programs, one for every target and head.

    Attributes:
      work: as from `by_queries` or `by_keys`.
      sides: of the targets, and the other ones.
      last_first: the order of a row's targets; those with the most work should begin.
      stages: see `HopperKernels`, as is the next.
      interpret: see there.
    """

    work: Worklist
    sides: Sequence[_Side]
    last_first: bool
    stages: int
    interpret: Any

    def vectors(self, side: int, x: Any) -> _Operand:
        """[B, H, n, d], cut along n."""
        if self.interpret and isinstance(x, jax.Array):
            x = self.sides[side].pad(x, 2)
        rows = self._rows(side)
        place = lambda row, head, start: (row, head, pl.ds(start, rows))
        return _Operand(x, place, (rows, x.shape[3]), TILES)

    def numbers(self, side: int, x: Any) -> _Operand:
        """[B, H, a few, n], cut along n."""
        rows = self._rows(side)
        place = lambda row, head, start: (row, head, slice(None), pl.ds(start, rows))
        if isinstance(x, jax.Array):
            x = self.sides[side].pad(x, 3)
        return _Operand(x, place, (x.shape[2], rows))

    def asking(self, side: int, sights: Sequence[Sight]) -> _Operand:
        """What queries see, of every source."""
        return self._integers(side, [x for s in sights for x in (s.query_class, s.low, s.high)])

    def telling(self, side: int, sight: Sight) -> _Operand:
        """Who sees keys."""
        return self._integers(side, [sight.key_class, sight.key_position])

    def sources(
        self, sources: Sequence[Source], sights: Sequence[Sight]
    ) -> list[list[list[_Operand]]]:
        """Of each source, what is free again together: keys and who sees them; values."""
        return [
            [[self.vectors(side, key), self.telling(side, sight)], [self.vectors(side, value)]]
            for side, ((key, value), sight) in enumerate(zip(sources, sights, strict=True), 1)
        ]

    def _rows(self, side: int) -> int:
        return self.sides[side].block if side else ROWS

    def _integers(self, side: int, rows: Sequence[jax.Array]) -> _Operand:
        """[B, n] each, cut along n."""
        x = self.sides[side].pad(jnp.stack(rows, axis=1), 2)
        width = self._rows(side)
        place = lambda row, head, start: (row, slice(None), pl.ds(start, width))
        return _Operand(x, place, (len(rows), width), masked=side > 0)

    def call(
        self,
        kernel: functools.partial,
        fixed: Sequence[_Operand],
        coming: Sequence[Sequence[Sequence[_Operand]]],
        results: Sequence[_Operand],
    ) -> Sequence[jax.Array]:
        """Results of a kernel for all targets and heads.

        Args:
          kernel: of a `_Program`, what a warpgroup computes: its rows of the results.
          fixed: of the target. A result of vectors leaves through the buffer of the operand of the
            same number.
          coming: per source, what comes with each of its blocks, by what is free again together;
            the same shapes for all.
          results: of the target.
        """
        operands, structure = jax.tree.flatten((list(fixed), list(coming)))
        rows, heads = fixed[0].array.shape[:2]
        targets = self.sides[0].blocks
        ring = gpu.Barrier(num_barriers=self.stages)
        scratch = {
            "fixed": [x.buffer(WARPGROUPS) for x in fixed],
            "coming": [[x.buffer(self.stages) for x in group] for group in coming[0]],
            "extra": [x.buffer(WARPGROUPS) for x in results if not x.transforms],
            "here": gpu.Barrier(num_arrivals=len(fixed), num_barriers=WARPGROUPS),
            "ready": [[ring for _ in group] for group in coming[0]],
            "free": [
                gpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=self.stages) for _ in coming[0]
            ],
            "turn": gpu.Barrier(num_arrivals=WARPGROUPS),
        }

        def run(*refs: Any, **shared: Any) -> None:
            starts, other, *arrays = refs[: 2 + len(operands)]
            number = lax.axis_index("program")
            block = lax.rem(number, targets)
            block = targets - 1 - block if self.last_first else block
            number = lax.div(number, targets)
            row, head = lax.div(number, heads), lax.rem(number, heads)
            kinds = KINDS * (len(self.sides) - 1)
            first = (row * targets + block) * kinds
            program = _Program(
                place=(row, head, block * self.sides[0].block),
                bounds=[starts[first + kind] for kind in range(kinds + 1)],
                stages=self.stages,
                registers=_Registers(plain=bool(self.interpret)),
                **shared,
            )
            warpgroup = lax.axis_index("warpgroup")

            @pl.when(warpgroup == WARPGROUPS)
            def _fetch() -> None:
                gpu.set_max_registers(FETCHER_REGISTERS, action="decrease")
                blocks = [side.blocks for side in self.sides[1:]]
                sizes = [side.block for side in self.sides[1:]]
                start = lambda source, item: lax.rem(other[item], blocks[source]) * sizes[source]
                program.fetch(*jax.tree.unflatten(structure, zip(operands, arrays)), start)

            @pl.when(warpgroup < WARPGROUPS)
            def _compute() -> None:
                gpu.set_max_registers(REGISTERS, action="increase")
                program.compute(warpgroup, kernel, list(zip(results, refs[2 + len(operands) :])))

        found = gpu.kernel(
            run,
            out_type=[jax.ShapeDtypeStruct(x.array.shape, x.array.dtype) for x in results],
            scratch_types=scratch,
            grid=(rows * heads * targets,),
            grid_names=("program",),
            num_threads=WARPGROUPS + 1,
            thread_name="warpgroup",
            kernel_name=kernel.func.__name__.strip("_"),
            compiler_params=gpu.CompilerParams(approx_math=True),
            interpret=self.interpret,
        )(self.work.starts, self.work.other, *[x.array for x in operands])
        length = self.sides[0].length
        return [
            x[:, :, :length] if operand.transforms else x
            for x, operand in zip(found, results, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class _Program:
    """One block of queries or keys, and its way through those on the other side.

    Attributes:
      place: row of the batch, head, and the first row of the target.
      bounds: [kinds + 1] where items of each kind begin in the worklist.
      stages: see `HopperKernels`.
      registers: operations on them.
      fixed: buffers [WARPGROUPS, ROWS, d] or [WARPGROUPS, a few, ROWS] of the target.
      coming: buffers [stages, ...] of the blocks that come, grouped by what is free together.
      extra: buffers of results that are no vectors.
      here: barriers [WARPGROUPS] of `fixed`.
      ready: barriers [stages] of every one of `coming`.
      free: barriers [stages] of every group of them.
      turn: a barrier at which the warpgroups that compute meet.
    """

    place: tuple[Any, Any, Any]
    bounds: Sequence[Any]
    stages: int
    registers: "_Registers"
    fixed: Sequence[Any]
    coming: Sequence[Sequence[Any]]
    extra: Sequence[Any]
    here: Any
    ready: Sequence[Sequence[Any]]
    free: Sequence[Any]
    turn: Any

    def fetch(
        self, fixed: Sequence[Any], coming: Any, start: Callable[[int, Any], jax.Array]
    ) -> None:
        """Starts all copies of the program, each as soon as its buffer is free.

        Args:
          fixed: operands of the target with their arrays.
          coming: the same of every source.
          start: of a source and an item, where the item's block begins.
        """
        row, head, target = self.place
        for warpgroup in range(WARPGROUPS):
            for (operand, array), buffer in zip(fixed, self.fixed, strict=True):
                cut = array.at[operand.place(row, head, target + warpgroup * ROWS)]
                gpu.copy_gmem_to_smem(cut, buffer.at[warpgroup], self.here.at[warpgroup])

        def step(source: int, masked: bool, item: Any, _: None) -> None:
            slot, turned = self._slot(item)
            groups = zip(coming[source], self.coming, self.ready, self.free, strict=True)
            for operands, buffers, ready, free in groups:
                pl.when(turned)(functools.partial(gpu.barrier_wait, free.at[slot]))
                for (operand, array), buffer, full in zip(operands, buffers, ready, strict=True):
                    if masked or not operand.masked:
                        cut = array.at[operand.place(row, head, start(source, item))]
                        gpu.copy_gmem_to_smem(cut, buffer.at[slot], full.at[slot])

        self._each(step, None)
        for slot in range(self.stages):  # all barriers are left as they were found
            used = slot < self.bounds[-1] - self.bounds[0]
            for free in self.free:
                pl.when(used)(functools.partial(gpu.barrier_wait, free.at[slot]))

    def compute(self, warpgroup: Any, kernel: Callable, results: Sequence[Any]) -> None:
        """Runs the kernel and stores what it returns; `results` are operands and their arrays."""
        row, head, target = self.place
        gpu.barrier_wait(self.here.at[warpgroup])
        mine = dataclasses.replace(self, fixed=[x.at[warpgroup] for x in self.fixed])
        values = kernel(mine, warpgroup)
        extra = iter(self.extra)
        for number, (value, (operand, array)) in enumerate(zip(values, results, strict=True)):
            buffer = (self.fixed[number] if operand.transforms else next(extra)).at[warpgroup]
            if operand.transforms:
                buffer[...] = value.astype(operand.array.dtype)
            else:
                buffer[0] = value
            gpu.commit_smem()
            cut = array.at[operand.place(row, head, target + warpgroup * ROWS)]
            gpu.copy_smem_to_gmem(buffer, cut)
        gpu.wait_smem_to_gmem(0)

    def walk(self, step: Callable[["_Block", Any], Any], carry: Any) -> Any:
        """`step(block, carry)` over all blocks that the target meets."""

        def take(source: int, masked: bool, item: Any, carry: Any) -> Any:
            return step(_Block(self, source, masked, self._slot(item)[0]), carry)

        return self._each(take, carry)

    def meet(self) -> None:
        """Both warpgroups wait here for each other."""
        gpu.barrier_arrive(self.turn)
        gpu.barrier_wait(self.turn)

    def _each(self, step: Callable, carry: Any) -> Any:
        """`step(source, masked, item, carry)` over all items."""
        for kind, (begin, end) in enumerate(itertools.pairwise(self.bounds)):
            body = functools.partial(step, kind // KINDS, kind % KINDS == PARTIAL)
            carry = lax.fori_loop(begin, end, body, carry)
        return carry

    def _slot(self, item: Any) -> tuple[jax.Array, jax.Array]:
        """The buffer of an item, and whether it had another before."""
        number = item - self.bounds[0]
        return lax.rem(number, self.stages), number >= self.stages


@dataclasses.dataclass(frozen=True)
class _Block:
    """A block of the other side that has come, or will."""

    program: _Program
    source: int
    masked: bool
    slot: jax.Array

    def get(self, group: int, number: int) -> Any:
        """A buffer, once it is ready; to be asked for once."""
        gpu.barrier_wait(self.program.ready[group][number].at[self.slot])
        return self.program.coming[group][number].at[self.slot]

    def free(self, group: int) -> None:
        """This warpgroup has read the buffers of a group."""
        gpu.barrier_arrive(self.program.free[group].at[self.slot])


@dataclasses.dataclass(frozen=True)
class _Registers:
    """Arithmetic on what a warpgroup has in registers.

    Attributes:
      plain: for interpret mode.
    """

    plain: bool

    def full(self, shape: tuple[int, ...], value: float, layout: Any) -> jax.Array:
        x = jnp.full(shape, value, jnp.float32)
        return x if self.plain else gpu.layout_cast(x, layout)

    def load(self, ref: Any, row: int, layout: Any) -> jax.Array:
        """One row of a buffer [rows, n]."""
        return ref[row] if self.plain else gpu.load(ref, (row,), layout=layout)

    def products(
        self, pairs: Sequence[tuple[Any, Any]], meanwhile: Callable[[], None] = lambda: None
    ) -> list[jax.Array]:
        """float32 [m, n] of each pair of buffers [m, d] and [n, d]; `meanwhile` is called once
        the work is under way."""
        if self.plain:
            meanwhile()
            return [_dot(a[...], b[...], 1) for a, b in pairs]

        def multiply(*sums: Any) -> list[jax.Array]:
            for ref, (a, b) in zip(sums, pairs, strict=True):
                gpu.wgmma(ref, a, gpu.transpose_ref(b, (1, 0)))
            meanwhile()
            return [ref[...] for ref in sums]

        shapes = [(a.shape[0], b.shape[0]) for a, b in pairs]
        return pl.run_scoped(multiply, *[gpu.ACC(shape, jnp.float32) for shape in shapes])

    def added(
        self, sums: Sequence[jax.Array], pairs: Sequence[tuple[jax.Array, Any]]
    ) -> Sequence[jax.Array]:
        """Each sum [m, d] plus the product of [m, n], in registers, and of a buffer [n, d]."""
        if self.plain:
            return [
                x + _dot(a.astype(b.dtype), b[...], 0) for x, (a, b) in zip(sums, pairs, strict=True)
            ]

        def multiply(refs: Any) -> None:
            for ref, (a, b) in zip(refs, pairs, strict=True):
                gpu.wgmma(ref, a.astype(b.dtype), b)

        return pl.run_state(multiply)([gpu.ACC.init(x) for x in sums])


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(
        a, b, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _forward_kernel(factor: float, program: _Program, warpgroup: Any) -> list[jax.Array]:
    q, asked = program.fixed
    registers, dtype = program.registers, q.dtype
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def step(block: _Block, carry: Any) -> Any:
        mixed, top, total = carry
        key = block.get(0, 0)
        (scores,) = registers.products([(q, key)], meanwhile=program.meet)
        if block.masked:
            scores = jnp.where(_mask(block, asked, block.get(0, 1), 0), scores, UNSEEN)
        block.free(0)
        above = jnp.maximum(top, scores.max(axis=1))
        floor = jnp.where(above > UNSEEN, above, 0.0) if block.masked else above
        weights = jnp.exp2(scores * factor - spread(floor * factor, scores))
        shrink = jnp.exp2((top - above) * factor)
        total = total * shrink + weights.sum(axis=1)
        mixed = mixed * spread(shrink, mixed)
        mixed, above, total, weights = lax.optimization_barrier(
            (mixed, above, total, weights.astype(dtype))
        )
        program.meet()
        (mixed,) = registers.added([mixed], [(weights, block.get(1, 0))])
        block.free(1)
        return mixed, above, total

    carry = (
        registers.full(q.shape, 0.0, MATRIX),
        registers.full((ROWS,), UNSEEN, ROW),
        registers.full((ROWS,), 0.0, ROW),
    )
    pl.when(warpgroup == 1)(program.meet)  # half a step behind the other
    mixed, top, total = program.walk(step, carry)
    pl.when(warpgroup == 0)(program.meet)
    sees = total > 0.0
    total = jnp.where(sees, total, 1.0)
    normalizer = jnp.where(sees, top * factor + jnp.log(total) * LOG2_E, 0.0)
    return [mixed * spread(1.0 / total, mixed), normalizer]


def _dq_kernel(scale: float, program: _Program, _: Any) -> list[jax.Array]:
    q, cotangent, numbers, asked = program.fixed
    registers = program.registers
    normalizer, delta = (registers.load(numbers, n, ROW) for n in range(2))
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def step(block: _Block, dq: jax.Array) -> jax.Array:
        key, value = block.get(0, 0), block.get(1, 0)
        scores, slopes = registers.products([(q, key), (cotangent, value)])
        block.free(1)
        weights = jnp.exp2(scores * (scale * LOG2_E) - spread(normalizer, scores))
        if block.masked:
            weights = jnp.where(_mask(block, asked, block.get(0, 1), 0), weights, 0.0)
        slopes = weights * (slopes - spread(delta, slopes))
        (dq,) = registers.added([dq], [(slopes.astype(q.dtype), key)])
        block.free(0)
        return dq

    return [program.walk(step, registers.full(q.shape, 0.0, MATRIX)) * scale]


def _dkeys_kernel(scale: float, program: _Program, _: Any) -> list[jax.Array]:
    key, value, told = program.fixed
    registers = program.registers
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [1])

    def step(block: _Block, carry: Any) -> Any:
        q, cotangent, numbers = (block.get(0, n) for n in range(3))
        scores, slopes = registers.products([(key, q), (value, cotangent)])
        normalizer, delta = (registers.load(numbers, n, COLUMN) for n in range(2))
        weights = jnp.exp2(scores * (scale * LOG2_E) - spread(normalizer, scores))
        if block.masked:
            weights = jnp.where(_mask(block, block.get(0, 3), told, 1), weights, 0.0)
        slopes = weights * (slopes - spread(delta, slopes))
        pairs = [(slopes.astype(q.dtype), q), (weights.astype(q.dtype), cotangent)]
        carry = registers.added(carry, pairs)
        block.free(0)
        return carry

    nothing = registers.full(key.shape, 0.0, MATRIX)
    dkey, dvalue = program.walk(step, [nothing, nothing])
    return [dkey * scale, dvalue]


def _mask(block: _Block, asked: Any, told: Any, axis: int) -> jax.Array:
    """Who sees whom in a block, bool, with the queries along `axis` of two.

    Args:
      block: that has come.
      asked: buffer [3 · sources, queries]; of one source for a block of queries.
      told: buffer [2, keys].
      axis: 0 or 1.
    """
    load = block.program.registers.load
    layouts = ROW, COLUMN
    shape = (ROWS, told.shape[1] if axis == 0 else asked.shape[1])
    spread = lambda x, axis: lax.broadcast_in_dim(x, shape, [axis])
    query = [spread(load(asked, ASKED * block.source + n, layouts[axis]), axis) for n in range(ASKED)]
    key = [spread(load(told, n, layouts[1 - axis]), 1 - axis) for n in range(TOLD)]
    (query_class, low, high), (key_class, position) = query, key
    same = (query_class == key_class) & (key_class > 0)
    return same & (low <= position) & (position <= high)
