"""A worklist as the grid of a TPU kernel: its steps, and the blocks that each asks for."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from models.kernels.attention import Source
from models.kernels.blocks import Side
from models.kernels.visits import KINDS, Worklist

SUBLANES = 8

Operand = tuple[Any, pl.BlockSpec]  # an array, or the shape of one, and how it is cut


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scalars", "total"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Steps:
    """A worklist as the steps of a grid.

    Attributes:
      scalars: kind of every step, its target, and per other side the block that is at hand then.
      total: [], number of steps.
    """

    scalars: Sequence[jax.Array]
    total: jax.Array

    @classmethod
    def of(cls, work: Worklist, sources: int) -> "Steps":
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
class Worklists:
    """Steps of the walks, and integers [B, 1, 8, n] of queries and of keys, for each source."""

    by_queries: Steps
    by_keys: list[Steps]
    asks: list[jax.Array]
    tells: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Walk:
    """A grid of heads and of steps.

    Attributes:
      steps: of a worklist.
      sides: of the targets, and the other ones.
      heads: H.
      first: row of the sources that belongs to the first of the batch, [].
      interpret: as of `pallas_call`.
    """

    steps: Steps
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

    def of_sources(self, sources: Sequence[Source], lists: Worklists) -> list[Operand]:
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
            name="attention_" + kernel.func.__name__.removesuffix("_kernel"),
        )(*scalars, *[x for x, _ in inputs])
