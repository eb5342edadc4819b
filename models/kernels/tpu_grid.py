"""A work list as the grid of a TPU kernel: prefetched scalars and block specs that follow them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from models.kernels.attention import Source
from models.kernels.blocks import BlockedAxis, Ref
from models.kernels.visits import KINDS, Worklist

SUBLANES = 8

Operand = tuple[Any, pl.BlockSpec]  # an array (or a result's ShapeDtypeStruct) and its block spec


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scalars", "total"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Steps:
    """A work list as the steps of a grid. Blocks are numbered through the batch.

    Attributes:
      scalars: int32 [E] each: the kind of a step, its target block, and for each source the block
        on the other side that is in VMEM during the step.
      total: int32 [], number of steps.
    """

    scalars: Sequence[jax.Array]
    total: jax.Array

    @classmethod
    def of(cls, work: Worklist, sources: int) -> "Steps":
        """Return the steps of a work list with `sources` axes on the other side."""
        step = jnp.arange(len(work.kind))
        scalars = [work.kind, work.target]
        for source in range(sources):  # a step of another source keeps the block, so no new fetch
            latest = jax.lax.cummax(jnp.where(work.kind // KINDS == source, step, -1))
            scalars.append(jnp.where(latest < 0, 0, work.other[latest]))  # at first, any block
        return cls(scalars, work.total)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["by_queries", "by_keys", "q_mask", "kv_mask"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Worklists:
    """Work lists of the kernels, and the mask rows of each source.

    Attributes:
      by_queries: steps of the forward and dq kernels, over all sources.
      by_keys: steps of the dkv kernel, for each source.
      q_mask: `q_mask_rows` of each source, int32 [B, 1, SUBLANES, R padded to whole blocks].
      kv_mask: `kv_mask_rows` of each source, int32 [B, 1, SUBLANES, S padded to whole blocks].
    """

    by_queries: Steps
    by_keys: list[Steps]
    q_mask: list[jax.Array]
    kv_mask: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class WorklistGrid:
    """The grid (heads, steps of a work list) of a kernel.

    Attributes:
      steps: of the work list.
      axes: the axis of the target blocks, then those on the other side.
      heads: H.
      first_row: int32 [], row of the sources that belongs to row 0 of the batch.
      interpret: as in `pallas_call`.
    """

    steps: Steps
    axes: Sequence[BlockedAxis]
    heads: int
    first_row: jax.Array
    interpret: Any

    def vectors(self, side: int, x: Any, from_first_row: bool = False) -> Operand:
        """Blocks [block, d] of x [rows, H, n, d] along `axes[side]`.

        Args:
          side: index of the axis.
          x: array, or the shape of a result.
          from_first_row: row 0 of the batch is row `first_row` of x.
        """
        shape = None, None, self.axes[side].block, x.shape[3]
        return self._operand(side, x, shape, 2, from_first_row)

    def scalars_per_token(self, side: int, x: Any) -> Operand:
        """Blocks [1, block] of x [B, H, 1, n padded to whole blocks]."""
        return self._operand(side, x, (None, None, 1, self.axes[side].block), 3)

    def mask_rows(self, side: int, x: jax.Array) -> Operand:
        """Blocks [SUBLANES, block] of x [B, 1, SUBLANES, n padded to whole blocks]."""
        return self._operand(side, x, (None, None, SUBLANES, self.axes[side].block), 3)

    def source_operands(self, sources: Sequence[Source], worklists: Worklists) -> list[Operand]:
        """Return keys, values, query mask rows and key mask rows of each source in turn."""
        operands = []
        for n, (key, value) in enumerate(sources):
            operands += [self.vectors(n + 1, x, from_first_row=True) for x in (key, value)]
            operands += [
                self.mask_rows(0, worklists.q_mask[n]),
                self.mask_rows(n + 1, worklists.kv_mask[n]),
            ]
        return operands

    def _operand(
        self, side: int, x: Any, shape: tuple, block_axis: int, from_first_row: bool = False
    ) -> Operand:
        blocks = self.axes[side].blocks

        def index_map(head: Any, step: Any, first_row: Any, kind: Any, *block_refs: Any) -> tuple:
            row, block = (op(block_refs[side][step], blocks) for op in (jax.lax.div, jax.lax.rem))
            row = row + first_row[0] if from_first_row else row
            index = [row, head if x.shape[1] == self.heads else 0, 0, 0]
            index[block_axis] = block
            return tuple(index)

        return x, pl.BlockSpec(shape, index_map)

    def call(
        self,
        kernel: functools.partial,
        inputs: Sequence[Operand],
        outputs: Sequence[Operand],
        scratch: Sequence[tuple[int, int]],
    ) -> Sequence[jax.Array]:
        """Run a kernel over the grid and return its results.

        Args:
          kernel: called as `kernel(scalar_refs, in_refs, out_refs, scratch_refs)` in every step.
          inputs: operands of `in_refs`.
          outputs: operands of `out_refs`.
          scratch: shapes of `scratch_refs`, float32 in VMEM.
        """
        scalars = [self.first_row[None], *self.steps.scalars]
        counts = len(scalars), len(inputs), len(outputs)
        stops = [sum(counts[: n + 1]) for n in range(3)]

        def body(*refs: Ref) -> None:
            kernel(
                refs[: stops[0]],
                refs[stops[0] : stops[1]],
                refs[stops[1] : stops[2]],
                refs[stops[2] :],
            )

        return pl.pallas_call(
            body,
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
            name="attention_" + kernel.func.__name__.removesuffix("_kernel"),
        )(*scalars, *[x for x, _ in inputs])
