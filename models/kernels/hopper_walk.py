"""The programs of one kernel for Hopper GPUs: their blocks, shared memory, barriers and launch."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from models.kernels import warpgroups
from models.kernels.attention import Source
from models.kernels.blocks import Side
from models.kernels.visits import KINDS, Worklist
from models.kernels.warpgroups import ROWS, WARPGROUPS

BLOCK = WARPGROUPS * ROWS  # of the targets
TILES = gpu.TilingTransform((8, 64)), gpu.SwizzleTransform(128)  # as wgmma reads 16-bit matrices


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "dq", "dkeys", "asks", "tells"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Worklists:
    """Worklists of the kernels, and for each source the integers of queries and of keys, [B, rows,
    n] with n a multiple of `BLOCK`."""

    forward: Worklist
    dq: Worklist
    dkeys: list[Worklist]
    asks: list[jax.Array]
    tells: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Operand:
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
class Walk:
    """Programs, one for every target and head.

    Attributes:
      work: items of all targets.
      sides: of the targets, and the other ones.
      last_first: the order of a row's targets; those with the most work should begin.
      stages: see `HopperKernels`, as is the next.
      interpret: see there.
    """

    work: Worklist
    sides: Sequence[Side]
    last_first: bool
    stages: int
    interpret: Any

    def vectors(self, side: int, x: Any) -> Operand:
        """[B, H, n, d], cut along n."""
        rows = self._rows(side)
        widths = [(0, 0), (0, 0), (0, -x.shape[2] % (BLOCK if self.interpret else 8)), (0, 0)]
        x = jnp.pad(x, widths) if widths[2][1] else x
        place = lambda row, head, start: (row, head, pl.ds(start, rows))
        return Operand(x, place, (rows, x.shape[3]), TILES)

    def numbers(self, side: int, x: Any) -> Operand:
        """[B, H, a few, n] in whole blocks, cut along n."""
        rows = self._rows(side)
        place = lambda row, head, start: (row, head, slice(None), pl.ds(start, rows))
        return Operand(x, place, (x.shape[2], rows))

    def integers(self, side: int, x: jax.Array) -> Operand:
        """[B, a few, n] in whole blocks, cut along n; of the other side, for a mask alone."""
        rows = self._rows(side)
        place = lambda row, head, start: (row, slice(None), pl.ds(start, rows))
        return Operand(x, place, (x.shape[1], rows), masked=side > 0)

    def sources(self, sources: Sequence[Source], lists: Worklists) -> list[list[list[Operand]]]:
        """Of each source, what is free again together: keys and who sees them; values."""
        return [
            [[self.vectors(side, key), self.integers(side, tells)], [self.vectors(side, value)]]
            for side, ((key, value), tells) in enumerate(zip(sources, lists.tells, strict=True), 1)
        ]

    def _rows(self, side: int) -> int:
        return self.sides[side].block if side else ROWS

    def call(
        self,
        kernel: functools.partial,
        fixed: Sequence[Operand],
        coming: Sequence[Sequence[Sequence[Operand]]],
        results: Sequence[Operand],
    ) -> Sequence[jax.Array]:
        """Results of a kernel for all targets and heads.

        Args:
          kernel: of a `Program`, what a warpgroup computes: its rows of the results.
          fixed: of the target. A result of vectors leaves through the buffer of the operand of the
            same number.
          coming: per source, what comes with each of its blocks, by what is free again together;
            the same shapes for all.
          results: of the target.
        """
        operands, structure = jax.tree.flatten((list(fixed), list(coming)))
        rows, heads = fixed[0].array.shape[:2]
        length, targets = self.sides[0].length, self.sides[0].blocks
        kinds = KINDS * len(coming)

        def run(*refs: Any, **shared: Any) -> None:
            starts, other = refs[:2]
            arrays = list(zip([*operands, *results], refs[2:], strict=True))
            number = lax.axis_index("program")
            block = lax.rem(number, targets)
            block = targets - 1 - block if self.last_first else block
            number = lax.div(number, targets)
            row, head = lax.div(number, heads), lax.rem(number, heads)
            first = (row * targets + block) * kinds
            program = warpgroups.Program(
                place=(row, head, block * BLOCK),
                bounds=[starts[first + kind] for kind in range(kinds + 1)],
                stages=self.stages,
                registers=warpgroups.Registers(plain=bool(self.interpret)),
                **shared,
            )

            def start(source: int, item: Any) -> jax.Array:
                side = self.sides[1 + source]
                return lax.rem(other[item], side.blocks) * side.block

            warpgroup = lax.axis_index("warpgroup")

            @pl.when(warpgroup == WARPGROUPS)
            def _fetch() -> None:
                gpu.set_max_registers(warpgroups.FETCHER_REGISTERS, action="decrease")
                here, there = jax.tree.unflatten(structure, arrays[: len(operands)])
                program.fetch(here, there, start)

            @pl.when(warpgroup < WARPGROUPS)
            def _compute() -> None:
                gpu.set_max_registers(warpgroups.REGISTERS, action="increase")
                program.compute(warpgroup, kernel, arrays[len(operands) :])

        found = gpu.kernel(
            run,
            out_type=[jax.ShapeDtypeStruct(x.array.shape, x.array.dtype) for x in results],
            scratch_types=self._scratch(fixed, coming[0], results),
            grid=(rows * heads * targets,),
            grid_names=("program",),
            num_threads=WARPGROUPS + 1,
            thread_name="warpgroup",
            kernel_name=kernel.func.__name__,
            compiler_params=gpu.CompilerParams(approx_math=True),
            interpret=self.interpret,
        )(self.work.starts, self.work.other, *[x.array for x in operands])
        return [
            x[:, :, :length] if operand.transforms else x[..., :length]
            for x, operand in zip(found, results, strict=True)
        ]

    def _scratch(
        self,
        fixed: Sequence[Operand],
        groups: Sequence[Sequence[Operand]],
        results: Sequence[Operand],
    ) -> dict[str, Any]:
        """Shared memory: the fields of `warpgroups.Program` that are buffers and barriers."""
        full = gpu.Barrier(num_barriers=self.stages)
        read = gpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=self.stages)
        return {
            "fixed": [x.buffer(WARPGROUPS) for x in fixed],
            "coming": [[x.buffer(self.stages) for x in group] for group in groups],
            "extra": [x.buffer(WARPGROUPS) for x in results if not x.transforms],
            "here": gpu.Barrier(num_arrivals=len(fixed), num_barriers=WARPGROUPS),
            "ready": [[full for _ in group] for group in groups],
            "free": [read for _ in groups],
            "turn": gpu.Barrier(num_arrivals=WARPGROUPS),
        }
