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
nothing there; it counts rows by eights, so an array of another length is filled up before, which is
a copy. Scores are multiplied by scale · log2(e), and exponentials are powers of two.

No two programs share a block of queries, so few queries (decoding) leave most of a GPU idle: that
is for the kernels of `models.kernels.triton`.
"""

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
from models.kernels.blocks import CLASS, LOG2_E, Side, asking, telling
from models.kernels.visits import KINDS, Sight, Worklist, by_keys, by_queries, meetings
from models.kernels.warpgroups import ROWS, WARPGROUPS

BLOCK = WARPGROUPS * ROWS  # of the targets
SUMS = 128 * 128  # of a row's keys at a time times a head's numbers: as the registers allow
TILES = gpu.TilingTransform((8, 64)), gpu.SwizzleTransform(128)  # as wgmma reads 16-bit matrices


@dataclasses.dataclass(frozen=True)
class HopperKernels:
    """`attention.Kernels` for Hopper GPUs: bfloat16 or float16, with heads of 64 or 128, and in the
    forward pass of 256, too (`sized`).

    Attributes:
      forward_block: keys that come at a time in the forward pass; 64 or 128, as are the next.
      dq_block: keys that come at a time for the gradient of queries.
      dkeys_block: queries that come at a time for those of keys and values.
      stages: blocks that are on their way or being read.
      interpret: parameters of Pallas' interpret mode for GPUs, or False. It knows no layouts and
        no products of registers, and its copies must not reach beyond the end of an array: for it,
        products are plain ones, and arrays are filled up to whole blocks.
    """

    forward_block: int = 128
    dq_block: int = 128
    dkeys_block: int = 64
    stages: int = 2
    interpret: Any = False

    def parts(self, sights: Sequence[Sight]) -> int:
        """See `attention.Kernels`."""
        return 1

    def worklists(self, sights: Sequence[Sight], heads: int) -> "_Worklists":
        """See `attention.Kernels`."""
        whole = lambda x: Side(x.shape[-1], BLOCK).pad(x)
        return _Worklists(
            forward=by_queries([meetings(s, BLOCK, self.forward_block) for s in sights], False),
            dq=by_queries([meetings(s, BLOCK, self.dq_block) for s in sights], False),
            dkeys=[by_keys(meetings(s, self.dkeys_block, BLOCK), False) for s in sights],
            asks=[_blind(whole(asking(sight))) for sight in sights],
            tells=[whole(telling(sight)) for sight in sights],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first: jax.Array,
        lists: "_Worklists",
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`.

        Raises:
          ValueError: a dtype or a head dimension that these kernels do not serve.
        """
        _check(q, SUMS // self.forward_block)
        rows = lambda x: x if len(x) == len(q) else lax.dynamic_slice_in_dim(x, first, len(q))
        sources = jax.tree.map(rows, sources)
        walk = self._by_queries(q, sources, lists.forward, self.forward_block)
        length = walk.sides[0].padded
        normalizers = jax.ShapeDtypeStruct((*q.shape[:2], 1, length), jnp.float32)
        mixed, normalizer = walk.call(
            functools.partial(warpgroups.forward_kernel, scale * LOG2_E),
            fixed=[walk.vectors(0, q), *(walk.integers(0, x) for x in lists.asks)],
            coming=walk.sources(sources, lists),
            results=[walk.vectors(0, q), walk.numbers(0, normalizers)],
        )
        return mixed, normalizer[:, :, 0]

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
        """See `attention.Kernels`.

        Raises:
          ValueError: as `forward`; heads of 256 are among what is not served.
        """
        _check(q, 128)
        numbers = jnp.stack([normalizer, delta], axis=2)  # [B, H, 2, R]
        numbers = Side(numbers.shape[3], BLOCK).pad(numbers)
        walk = self._by_queries(q, sources, lists.dq, self.dq_block)
        (dq,) = walk.call(
            functools.partial(warpgroups.dq_kernel, scale),
            fixed=[
                *(walk.vectors(0, x) for x in (q, cotangent)),
                walk.numbers(0, numbers),
                *(walk.integers(0, x) for x in lists.asks),
            ],
            coming=walk.sources(sources, lists),
            results=[walk.vectors(0, q)],
        )
        slopes = []
        for n, source in enumerate(sources):
            sides = Side(source[0].shape[2], BLOCK), Side(q.shape[2], self.dkeys_block)
            walk = _Walk(lists.dkeys[n], sides, False, self.stages, self.interpret)
            queries = [walk.vectors(1, x) for x in (q, cotangent)]
            dkey, dvalue = walk.call(
                functools.partial(warpgroups.dkeys_kernel, scale),
                fixed=[*(walk.vectors(0, x) for x in source), walk.integers(0, lists.tells[n])],
                coming=[[[*queries, walk.numbers(1, numbers), walk.integers(1, lists.asks[n])]]],
                results=[walk.vectors(0, x) for x in source],
            )
            slopes.append((dkey, dvalue))
        return dq, slopes

    def _by_queries(
        self, q: jax.Array, sources: Sequence[Source], work: Worklist, block: int
    ) -> "_Walk":
        sides = Side(q.shape[2], BLOCK), *(Side(key.shape[2], block) for key, _ in sources)
        return _Walk(work, sides, True, self.stages, self.interpret)


def sized(head_dim: int, interpret: Any = False) -> HopperKernels:
    """Kernels for heads of so many numbers, as fit the registers and the shared memory."""
    return HopperKernels(
        forward_block=min(128, SUMS // head_dim),
        stages=4 if head_dim <= 64 else 2,
        interpret=interpret,
    )


def _blind(asks: jax.Array) -> jax.Array:
    """Queries of class 0 have class -1, which no key has: a mask need only compare classes."""
    query_class = asks[:, CLASS]
    return asks.at[:, CLASS].set(jnp.where(query_class > 0, query_class, -1))


def _check(q: jax.Array, largest: int) -> None:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(f"matrices of the Hopper kernels are bfloat16 or float16, not {q.dtype}")
    if q.shape[3] not in (64, 128, 256) or q.shape[3] > largest:
        raise ValueError(
            f"a head of {q.shape[3]} numbers is none that these kernels serve (64, 128, and in the "
            f"forward pass 256), or its sums do not fit the registers: here {largest} do"
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "dq", "dkeys", "asks", "tells"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class _Worklists:
    """Worklists of the kernels, and for each source the integers of queries and of keys, [B, rows,
    n] with n a multiple of `BLOCK`."""

    forward: Worklist
    dq: Worklist
    dkeys: list[Worklist]
    asks: list[jax.Array]
    tells: list[jax.Array]


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

    def vectors(self, side: int, x: Any) -> _Operand:
        """[B, H, n, d], cut along n."""
        rows = self._rows(side)
        widths = [(0, 0), (0, 0), (0, -x.shape[2] % (BLOCK if self.interpret else 8)), (0, 0)]
        x = jnp.pad(x, widths) if widths[2][1] else x
        place = lambda row, head, start: (row, head, pl.ds(start, rows))
        return _Operand(x, place, (rows, x.shape[3]), TILES)

    def numbers(self, side: int, x: Any) -> _Operand:
        """[B, H, a few, n] in whole blocks, cut along n."""
        rows = self._rows(side)
        place = lambda row, head, start: (row, head, slice(None), pl.ds(start, rows))
        return _Operand(x, place, (x.shape[2], rows))

    def integers(self, side: int, x: jax.Array) -> _Operand:
        """[B, a few, n] in whole blocks, cut along n; of the other side, for a mask alone."""
        rows = self._rows(side)
        place = lambda row, head, start: (row, slice(None), pl.ds(start, rows))
        return _Operand(x, place, (x.shape[1], rows), masked=side > 0)

    def sources(self, sources: Sequence[Source], lists: _Worklists) -> list[list[list[_Operand]]]:
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
        fixed: Sequence[_Operand],
        coming: Sequence[Sequence[Sequence[_Operand]]],
        results: Sequence[_Operand],
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
        fixed: Sequence[_Operand],
        groups: Sequence[Sequence[_Operand]],
        results: Sequence[_Operand],
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
