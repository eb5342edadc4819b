"""The launch of a kernel for Hopper GPUs: its grid, operands, shared memory and barriers."""

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
from models.kernels.blocks import BlockedAxis, Ref
from models.kernels.visits import KINDS, Worklist
from models.kernels.warpgroups import ROWS, WARPGROUPS

BLOCK = WARPGROUPS * ROWS  # tokens of a target block
TILES = gpu.TilingTransform((8, 64)), gpu.SwizzleTransform(128)  # as wgmma reads 16-bit matrices


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "dq", "dkv", "q_mask", "kv_mask"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Worklists:
    """Work lists of the kernels, and the mask rows of each source.

    Attributes:
      forward: by query block, over all sources.
      dq: by query block, over all sources.
      dkv: by key block, one list for each source.
      q_mask: `q_mask_rows` of each source, int32 [B, 3, R], padded to a multiple of BLOCK.
      kv_mask: `kv_mask_rows` of each source, int32 [B, 2, S], padded likewise.
    """

    forward: Worklist
    dq: Worklist
    dkv: list[Worklist]
    q_mask: list[jax.Array]
    kv_mask: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Operand:
    """An array of a kernel and the blocks into which it is cut.

    Attributes:
      array: in the GPU's memory, or the ShapeDtypeStruct of a result.
      index: function of (row of the batch, head, first token) that returns the index of a block.
      shape: shape of a block.
      transforms: layout of a block in shared memory.
      mask_only: the block is fetched only for pairs of blocks that need a mask.
    """

    array: Any
    index: Callable[[Any, Any, Any], tuple]
    shape: tuple[int, ...]
    transforms: Sequence[Any] = ()
    mask_only: bool = False

    def buffer(self, count: int) -> Any:
        """Return the type of a buffer for `count` blocks in shared memory."""
        shape = (count, *self.shape)
        return gpu.SMEM(shape, self.array.dtype, transforms=self.transforms)


@dataclasses.dataclass(frozen=True)
class Launch:
    """A grid with one program for every row of the batch, head and target block.

    Attributes:
      work: work list of all targets.
      axes: the axis of the target blocks, then those on the other side.
      last_first: start a row's targets from the last one. Those with the most work should start
        first.
      stages: see `HopperKernels`.
      interpret: see `HopperKernels`.
    """

    work: Worklist
    axes: Sequence[BlockedAxis]
    last_first: bool
    stages: int
    interpret: Any

    def vectors(self, side: int, x: Any) -> Operand:
        """Blocks [tokens, d] of x [B, H, n, d] along `axes[side]`."""
        tokens = self._block_tokens(side)
        widths = [(0, 0), (0, 0), (0, -x.shape[2] % (BLOCK if self.interpret else 8)), (0, 0)]
        x = jnp.pad(x, widths) if widths[2][1] else x
        index = lambda row, head, start: (row, head, pl.ds(start, tokens))
        return Operand(x, index, (tokens, x.shape[3]), TILES)

    def scalars_per_token(self, side: int, x: Any) -> Operand:
        """Blocks [m, tokens] of x [B, H, m, n padded to whole blocks]."""
        tokens = self._block_tokens(side)
        index = lambda row, head, start: (row, head, slice(None), pl.ds(start, tokens))
        return Operand(x, index, (x.shape[2], tokens))

    def mask_rows(self, side: int, x: jax.Array) -> Operand:
        """Blocks [m, tokens] of x [B, m, n padded to whole blocks]; blocks on the other side are
        fetched only if a mask is needed."""
        tokens = self._block_tokens(side)
        index = lambda row, head, start: (row, slice(None), pl.ds(start, tokens))
        return Operand(x, index, (x.shape[1], tokens), mask_only=side > 0)

    def source_operands(
        self, sources: Sequence[Source], worklists: Worklists
    ) -> list[list[list[Operand]]]:
        """Return for each source the groups of operands that are freed together: keys with their
        mask rows, and values."""
        return [
            [[self.vectors(side, key), self.mask_rows(side, kv_mask)], [self.vectors(side, value)]]
            for side, ((key, value), kv_mask) in enumerate(
                zip(sources, worklists.kv_mask, strict=True), 1
            )
        ]

    def _block_tokens(self, side: int) -> int:
        return self.axes[side].block if side else ROWS

    def call(
        self,
        kernel: functools.partial,
        target: Sequence[Operand],
        stream: Sequence[Sequence[Sequence[Operand]]],
        results: Sequence[Operand],
    ) -> Sequence[jax.Array]:
        """Run a kernel for all targets and heads and return its results.

        Args:
          kernel: called as `kernel(program, warpgroup)`; returns this warpgroup's rows of the
            results.
          target: operands of the target block. A result of vectors is written through the buffer
            of the operand with the same index.
          stream: operands of the visited blocks, for each source, in groups that are freed
            together; block shapes are the same for all sources.
          results: operands of the results.
        """
        operands, structure = jax.tree.flatten((list(target), list(stream)))
        rows, heads = target[0].array.shape[:2]
        length, targets = self.axes[0].length, self.axes[0].blocks
        kinds = KINDS * len(stream)

        def body(*refs: Ref, **shared: Any) -> None:
            starts_ref, other_ref = refs[:2]
            arrays = list(zip([*operands, *results], refs[2:], strict=True))
            number = lax.axis_index("program")
            block = lax.rem(number, targets)
            block = targets - 1 - block if self.last_first else block
            number = lax.div(number, targets)
            row, head = lax.div(number, heads), lax.rem(number, heads)
            first = (row * targets + block) * kinds
            program = warpgroups.Program(
                index=(row, head, block * BLOCK),
                bounds=[starts_ref[first + kind] for kind in range(kinds + 1)],
                stages=self.stages,
                registers=warpgroups.Registers(plain=bool(self.interpret)),
                **shared,
            )

            def start(source: int, entry: Any) -> jax.Array:
                axis = self.axes[1 + source]
                return lax.rem(other_ref[entry], axis.blocks) * axis.block

            warpgroup = lax.axis_index("warpgroup")

            @pl.when(warpgroup == WARPGROUPS)
            def _fetch() -> None:
                gpu.set_max_registers(warpgroups.FETCH_REGISTERS, action="decrease")
                of_target, of_blocks = jax.tree.unflatten(structure, arrays[: len(operands)])
                program.fetch(of_target, of_blocks, start)

            @pl.when(warpgroup < WARPGROUPS)
            def _compute() -> None:
                gpu.set_max_registers(warpgroups.REGISTERS, action="increase")
                program.compute(warpgroup, kernel, arrays[len(operands) :])

        outputs = gpu.kernel(
            body,
            out_type=[jax.ShapeDtypeStruct(x.array.shape, x.array.dtype) for x in results],
            scratch_types=self._scratch(target, stream[0], results),
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
            for x, operand in zip(outputs, results, strict=True)
        ]

    def _scratch(
        self,
        target: Sequence[Operand],
        groups: Sequence[Sequence[Operand]],
        results: Sequence[Operand],
    ) -> dict[str, Any]:
        """Shared memory: the fields of `warpgroups.Program` that are buffers and barriers."""
        full = gpu.Barrier(num_barriers=self.stages)
        read = gpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=self.stages)
        return {
            "fixed_bufs": [x.buffer(WARPGROUPS) for x in target],
            "block_bufs": [[x.buffer(self.stages) for x in group] for group in groups],
            "extra_bufs": [x.buffer(WARPGROUPS) for x in results if not x.transforms],
            "loaded": gpu.Barrier(num_arrivals=len(target), num_barriers=WARPGROUPS),
            "ready": [[full for _ in group] for group in groups],
            "free": [read for _ in groups],
            "turn": gpu.Barrier(num_arrivals=WARPGROUPS),
        }
