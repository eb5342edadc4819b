"""A program on a Hopper GPU: its fetch and compute warpgroups, buffers, barriers and registers.

A `Program` computes one target block of 128 queries or keys, 64 rows on each of two compute
warpgroups, and visits the blocks on the other side that its work list names. A third warpgroup
fetches those with the copy engine (TMA), up to `stages` ahead, into ring buffers in shared memory.
Barriers hand the buffers over: `ready` once a buffer is full, `free` once both compute warpgroups
have read it. `hopper` defines which operands are fetched, `hopper_bodies` what is computed.
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

from models.kernels.blocks import Ref
from models.kernels.visits import KINDS, PARTIAL

WARPGROUPS, ROWS = 2, 64  # compute warpgroups, and rows of the target block on each
REGISTERS, FETCH_REGISTERS = 240, 24  # registers per thread of the compute and fetch warpgroups
MATRIX = gpu.Layout.WGMMA  # register layout of a matrix product
ROW, COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)  # layouts of one number per row, or per column


@dataclasses.dataclass(frozen=True)
class Program:
    """The buffers, barriers and work of one program: a target block and the blocks that it visits.

    Attributes:
      index: row of the batch, head, and first row of the target block.
      bounds: [kinds + 1], where the entries of each kind begin in the work list.
      stages: see `HopperKernels`.
      registers: operations on registers.
      fixed_bufs: buffers of the target block, [WARPGROUPS, ROWS, d] for vectors or [WARPGROUPS, m,
        ROWS] for m numbers per token; a kernel body sees them without the leading axis.
      block_bufs: ring buffers [stages, …] of the visited blocks, in groups that are freed together.
      extra_bufs: buffers of the results that are not vectors; vectors leave through `fixed_bufs`.
      loaded: barriers [WARPGROUPS]: the `fixed_bufs` are full.
      ready: barriers [stages] for each of `block_bufs`: it is full.
      free: barriers [stages] for each group of `block_bufs`: both warpgroups have read it.
      turn: a barrier at which the compute warpgroups wait for each other.
    """

    index: tuple[Any, Any, Any]
    bounds: Sequence[Any]
    stages: int
    registers: "Registers"
    fixed_bufs: Sequence[Ref]
    block_bufs: Sequence[Sequence[Ref]]
    extra_bufs: Sequence[Ref]
    loaded: Ref
    ready: Sequence[Sequence[Ref]]
    free: Sequence[Ref]
    turn: Ref

    def fetch(
        self, target: Sequence[Any], stream: Any, start: Callable[[int, Any], jax.Array]
    ) -> None:
        """Start all copies of the program, each as soon as its buffer is free.

        Args:
          target: (operand, array) pairs of the target block.
          stream: the same for each source, in groups, of the blocks to visit.
          start: of a source and a work list entry, the first token of the block.
        """
        row, head, first = self.index
        for warpgroup in range(WARPGROUPS):
            for (operand, array), buffer in zip(target, self.fixed_bufs, strict=True):
                view = array.at[operand.index(row, head, first + warpgroup * ROWS)]
                gpu.copy_gmem_to_smem(view, buffer.at[warpgroup], self.loaded.at[warpgroup])

        def step(source: int, masked: bool, entry: Any, _: None) -> None:
            slot, is_reused = self._slot(entry)
            begin = start(source, entry)  # loaded while the fetcher waits for a free buffer
            groups = zip(stream[source], self.block_bufs, self.ready, self.free, strict=True)
            for operands, buffers, ready, free in groups:
                pl.when(is_reused)(functools.partial(gpu.barrier_wait, free.at[slot]))
                for (operand, array), buffer, full in zip(operands, buffers, ready, strict=True):
                    if masked or not operand.mask_only:
                        view = array.at[operand.index(row, head, begin)]
                        gpu.copy_gmem_to_smem(view, buffer.at[slot], full.at[slot])

        self._each_entry(step, None)
        for slot in range(self.stages):  # leave all barriers in their initial phase
            used = slot < self.bounds[-1] - self.bounds[0]
            for free in self.free:
                pl.when(used)(functools.partial(gpu.barrier_wait, free.at[slot]))

    def compute(self, warpgroup: Any, kernel: Callable, results: Sequence[Any]) -> None:
        """Run the kernel and store what it returns; `results` are (operand, array) pairs."""
        row, head, first = self.index
        gpu.barrier_wait(self.loaded.at[warpgroup])
        own = dataclasses.replace(self, fixed_bufs=[x.at[warpgroup] for x in self.fixed_bufs])
        values = kernel(own, warpgroup)
        extra_bufs = iter(self.extra_bufs)
        for number, (value, (operand, array)) in enumerate(zip(values, results, strict=True)):
            buffers = self.fixed_bufs[number] if operand.transforms else next(extra_bufs)
            buffer = buffers.at[warpgroup]
            if operand.transforms:
                buffer[...] = value.astype(operand.array.dtype)
            else:
                buffer[0] = value
            gpu.commit_smem()
            view = array.at[operand.index(row, head, first + warpgroup * ROWS)]
            gpu.copy_smem_to_gmem(buffer, view)
        gpu.wait_smem_to_gmem(0)

    def visit_blocks(self, step: Callable[["Block", Any], Any], carry: Any) -> Any:
        """Fold `step(block, carry)` over all blocks on the work list of the target."""

        def body(source: int, masked: bool, entry: Any, carry: Any) -> Any:
            return step(Block(self, source, masked, self._slot(entry)[0]), carry)

        return self._each_entry(body, carry)

    def take_turns(self) -> None:
        """Make the two compute warpgroups wait here for each other."""
        gpu.barrier_arrive(self.turn)
        gpu.barrier_wait(self.turn)

    def _each_entry(self, step: Callable, carry: Any) -> Any:
        """Fold `step(source, masked, entry, carry)` over all entries of the work list."""
        for kind, (begin, end) in enumerate(itertools.pairwise(self.bounds)):
            body = functools.partial(step, kind // KINDS, kind % KINDS == PARTIAL)
            carry = lax.fori_loop(begin, end, body, carry)
        return carry

    def _slot(self, entry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the ring buffer slot of an entry, and whether an earlier entry used it."""
        number = entry - self.bounds[0]
        return lax.rem(number, self.stages), number >= self.stages


@dataclasses.dataclass(frozen=True)
class Block:
    """A block on the other side whose copy has been started.

    Attributes:
      program: of the block.
      source: index of its source.
      masked: whether the pair of blocks is only partially visible.
      slot: of the ring buffers.
    """

    program: Program
    source: int
    masked: bool
    slot: jax.Array

    def get(self, group: int, number: int) -> Ref:
        """Wait until a buffer is full and return it; call it once for each buffer."""
        gpu.barrier_wait(self.program.ready[group][number].at[self.slot])
        return self.program.block_bufs[group][number].at[self.slot]

    def free(self, group: int) -> None:
        """Signal that this warpgroup has read the buffers of a group."""
        gpu.barrier_arrive(self.program.free[group].at[self.slot])


@dataclasses.dataclass(frozen=True)
class Registers:
    """Arithmetic on values that a warpgroup holds in registers.

    Attributes:
      plain: use plain jax operations, for interpret mode.
    """

    plain: bool

    def full(self, shape: tuple[int, ...], value: float, layout: Any) -> jax.Array:
        """Return a float32 constant in a register layout."""
        x = jnp.full(shape, value, jnp.float32)
        return x if self.plain else gpu.layout_cast(x, layout)

    def load(self, ref: Ref, row: int, layout: Any) -> jax.Array:
        """Load one row of a buffer [rows, n]."""
        return ref[row] if self.plain else gpu.layout_cast(ref[row], layout)

    def products(
        self, pairs: Sequence[tuple[Ref, Ref]], meanwhile: Callable[[], None] = lambda: None
    ) -> list[jax.Array]:
        """Return A Bᵀ, float32 [m, n], for each pair of buffers A [m, d] and B [n, d]; `meanwhile`
        is called once the products have been issued."""
        if self.plain:
            meanwhile()
            return [_dot(a[...], b[...], 1) for a, b in pairs]

        def multiply(*acc_refs: Ref) -> list[jax.Array]:
            for acc_ref, (a, b) in zip(acc_refs, pairs, strict=True):
                gpu.wgmma(acc_ref, a, gpu.transpose_ref(b, (1, 0)))
            meanwhile()
            return [acc_ref[...] for acc_ref in acc_refs]

        shapes = [(a.shape[0], b.shape[0]) for a, b in pairs]
        return pl.run_scoped(multiply, *[gpu.ACC(shape, jnp.float32) for shape in shapes])

    def accumulate(
        self, sums: Sequence[jax.Array], pairs: Sequence[tuple[jax.Array, Ref]]
    ) -> Sequence[jax.Array]:
        """Return each sum [m, d] plus A B, with A [m, n] in registers and B a buffer [n, d]."""
        if self.plain:
            return [
                x + _dot(a.astype(b.dtype), b[...], 0)
                for x, (a, b) in zip(sums, pairs, strict=True)
            ]

        def multiply(acc_refs: Any) -> None:
            for acc_ref, (a, b) in zip(acc_refs, pairs, strict=True):
                gpu.wgmma(acc_ref, a.astype(b.dtype), b)

        return pl.run_state(multiply)([gpu.ACC.init(x) for x in sums])


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)
