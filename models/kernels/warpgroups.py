"""What the warpgroups of a program on a Hopper GPU do: fetch, multiply, and the kernels themselves.

A `Program` is one block of queries or of keys, 64 rows for each of two warpgroups that compute, and
its way through the blocks on the other side. The third warpgroup fetches these with the copy engine
(TMA), up to `stages` ahead, and hands them over with barriers: `ready` once a buffer is full,
`free` once both others have read it. `models.kernels.hopper` says what is fetched from where.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from models.kernels.blocks import CLASS, HIGH, LOG2_E, LOW, POSITION
from models.kernels.visits import KINDS, PARTIAL

WARPGROUPS, ROWS = 2, 64  # that compute, and rows of a target that each of them has
REGISTERS, FETCHER_REGISTERS = 240, 24  # of a thread that computes, and of one that fetches
UNSEEN = -1e30  # a score, not yet scaled; finite, for the sake of differences
MATRIX = gpu.Layout.WGMMA  # of a product, in registers
ROW, COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)  # of one number per row, or per column


@dataclasses.dataclass(frozen=True)
class Program:
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
    registers: "Registers"
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
            begin = start(source, item)  # is on its way while a buffer is waited for
            groups = zip(coming[source], self.coming, self.ready, self.free, strict=True)
            for operands, buffers, ready, free in groups:
                pl.when(turned)(functools.partial(gpu.barrier_wait, free.at[slot]))
                for (operand, array), buffer, full in zip(operands, buffers, ready, strict=True):
                    if masked or not operand.masked:
                        cut = array.at[operand.place(row, head, begin)]
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

    def walk(self, step: Callable[["Block", Any], Any], carry: Any) -> Any:
        """`step(block, carry)` over all blocks that the target meets."""

        def take(source: int, masked: bool, item: Any, carry: Any) -> Any:
            return step(Block(self, source, masked, self._slot(item)[0]), carry)

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
class Block:
    """A block of the other side that has come, or will."""

    program: Program
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
class Registers:
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
        return ref[row] if self.plain else gpu.layout_cast(ref[row], layout)

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
                x + _dot(a.astype(b.dtype), b[...], 0)
                for x, (a, b) in zip(sums, pairs, strict=True)
            ]

        def multiply(refs: Any) -> None:
            for ref, (a, b) in zip(refs, pairs, strict=True):
                gpu.wgmma(ref, a.astype(b.dtype), b)

        return pl.run_state(multiply)([gpu.ACC.init(x) for x in sums])


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def forward_kernel(factor: float, program: Program, warpgroup: Any) -> list[jax.Array]:
    """Mixed values and base-2 normalizers of a block of queries.

    Scores are what queries and keys give, times `factor` only as they enter an exponential. The
    warpgroups meet twice for every block of keys, one of them half a block behind: while it
    multiplies, the other computes exponentials.
    """
    q, *asked = program.fixed
    registers, dtype = program.registers, q.dtype
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def step(block: Block, carry: Any) -> Any:
        mixed, top, total = carry
        key = block.get(0, 0)
        (scores,) = registers.products([(q, key)], meanwhile=program.meet)
        if block.masked:
            scores = jnp.where(
                _mask(registers, asked[block.source], block.get(0, 1), 0), scores, UNSEEN
            )
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


def dq_kernel(scale: float, program: Program, _: Any) -> list[jax.Array]:
    """Gradient of a block of queries."""
    q, cotangent, numbers, *asked = program.fixed
    registers = program.registers
    normalizer, delta = (registers.load(numbers, n, ROW) for n in range(2))
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [0])

    def step(block: Block, dq: jax.Array) -> jax.Array:
        key, value = block.get(0, 0), block.get(1, 0)
        scores, slopes = registers.products([(q, key), (cotangent, value)])
        block.free(1)
        weights = jnp.exp2(scores * (scale * LOG2_E) - spread(normalizer, scores))
        if block.masked:
            weights = jnp.where(
                _mask(registers, asked[block.source], block.get(0, 1), 0), weights, 0.0
            )
        slopes = weights * (slopes - spread(delta, slopes))
        (dq,) = registers.added([dq], [(slopes.astype(q.dtype), key)])
        block.free(0)
        return dq

    return [program.walk(step, registers.full(q.shape, 0.0, MATRIX)) * scale]


def dkeys_kernel(scale: float, program: Program, _: Any) -> list[jax.Array]:
    """Gradients of a block of keys and of its values."""
    key, value, told = program.fixed
    registers = program.registers
    spread = lambda x, like: lax.broadcast_in_dim(x, like.shape, [1])

    def step(block: Block, carry: Any) -> Any:
        q, cotangent, numbers = (block.get(0, n) for n in range(3))
        scores, slopes = registers.products([(key, q), (value, cotangent)])
        normalizer, delta = (registers.load(numbers, n, COLUMN) for n in range(2))
        weights = jnp.exp2(scores * (scale * LOG2_E) - spread(normalizer, scores))
        if block.masked:
            weights = jnp.where(_mask(registers, block.get(0, 3), told, 1), weights, 0.0)
        slopes = weights * (slopes - spread(delta, slopes))
        pairs = [(slopes.astype(q.dtype), q), (weights.astype(q.dtype), cotangent)]
        carry = registers.added(carry, pairs)
        block.free(0)
        return carry

    nothing = registers.full(key.shape, 0.0, MATRIX)
    dkey, dvalue = program.walk(step, [nothing, nothing])
    return [dkey * scale, dvalue]


def _mask(registers: Registers, asked: Any, told: Any, axis: int) -> jax.Array:
    """Who sees whom in a block, bool, with the queries along `axis` of two.

    Args:
      registers: operations on them.
      asked: buffer [3, queries]; a query that sees nothing has a class that no key has.
      told: buffer [2, keys].
      axis: 0 or 1.
    """
    shape = (asked.shape[1], told.shape[1]) if axis == 0 else (told.shape[1], asked.shape[1])

    def spread(ref: Any, row: int, axis: int) -> jax.Array:
        line = registers.load(ref, row, (ROW, COLUMN)[axis])
        return lax.broadcast_in_dim(line, shape, [axis])

    query_class, low, high = (spread(asked, row, axis) for row in (CLASS, LOW, HIGH))
    key_class, position = (spread(told, row, 1 - axis) for row in (CLASS, POSITION))
    return (query_class == key_class) & (low <= position) & (position <= high)
