"""The attention kernels for GPUs (Pallas, Triton), from Ampere to Blackwell.

A program has one block of queries, or of keys, and loops over the blocks that it meets: a
worklist's `starts` are the bounds of its loops, so it does what there is to do and nothing else.
Pairs of blocks of which every query sees every key come first and need no mask.

    forward   a block of queries: softmax over its blocks of keys
    dq        the same loops: dq += p · (do·v - delta) · k, with p from the normalizers
    dk, dv    a block of keys: over the blocks of queries that see it, in their order, so the sum
              over all branches of a trunk has one order, too; scores are [keys, queries] here

Scores are multiplied by scale · log2(e), and exponentials are powers of two. Where few blocks of
queries could not fill the chip (decoding), several programs share one, each with a part of its
keys; what they found is joined by the normalizers.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from models.kernels.attention import Source
from models.kernels.blocks import LOG2_E, Side, asking, telling
from models.kernels.triton_bodies import dkeys_kernel, dq_kernel, forward_kernel
from models.kernels.visits import Meetings, Sight, Worklist, by_keys, by_queries, meetings

SMALLEST, LARGEST = 16, 128  # sides of a block


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How one of the kernels is cut.

    Attributes:
      queries: of a block, at most; a power of two, as is the next.
      keys: of a block, at most.
      warps: that compute a block.
      stages: blocks on their way from memory, the one that is computed included.
    """

    queries: int
    keys: int
    warps: int
    stages: int


@dataclasses.dataclass(frozen=True)
class TritonKernels:
    """`attention.Kernels` for GPUs; head_dim is a power of two.

    Attributes:
      forward_tiles: of the forward pass.
      dq_tiles: of the queries' gradient.
      dkeys_tiles: of the keys' and values' gradients.
      few_tiles: of a forward pass with so few queries that several programs share a block of them.
      programs: that fill the chip.
      interpret: as of `pallas_call`.
    """

    forward_tiles: Tiles
    dq_tiles: Tiles
    dkeys_tiles: Tiles
    few_tiles: Tiles
    programs: int
    interpret: bool = False

    def parts(self, sights: Sequence[Sight]) -> int:
        """See `attention.Kernels`."""
        return 1

    def worklists(self, sights: Sequence[Sight], heads: int) -> "_Worklists":
        """See `attention.Kernels`."""
        batch, rows = sights[0].low.shape

        def met(tiles: Tiles) -> list[Meetings]:
            queries, *keys = _sides(tiles, rows, [sight.keys for sight in sights])
            cut = zip(sights, keys, strict=True)
            return [meetings(sight, queries.block, side.block) for sight, side in cut]

        forward_tiles, _ = self._forward_tiles(batch * heads, rows)
        whole = lambda x: Side(x.shape[-1], LARGEST).pad(x)
        return _Worklists(
            forward=by_queries(met(forward_tiles), idle=False),
            dq=by_queries(met(self.dq_tiles), idle=False),
            dkeys=[by_keys(m, idle=False) for m in met(self.dkeys_tiles)],
            asks=[whole(asking(sight)) for sight in sights],
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
        """See `attention.Kernels`."""
        batch, heads, rows, _ = q.shape
        tiles, splits = self._forward_tiles(batch * heads, rows)
        queries, *keys = _sides(tiles, rows, [key.shape[2] for key, _ in sources])
        mixed, normalizer = pl.pallas_call(
            functools.partial(forward_kernel, scale * LOG2_E, queries, keys, splits),
            grid=(queries.blocks * splits, heads, batch),
            out_shape=[
                jax.ShapeDtypeStruct((splits, *q.shape), q.dtype if splits == 1 else jnp.float32),
                jax.ShapeDtypeStruct((splits, *q.shape[:3]), jnp.float32),
            ],
            **self._options(tiles, "attention_forward"),
        )(
            first[None],
            lists.forward.starts,
            lists.forward.other,
            q,
            *_of(sources, lists),
        )
        return (mixed[0], normalizer[0]) if splits == 1 else _joined(mixed, normalizer, q.dtype)

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
        batch, heads, rows, _ = q.shape
        lengths = [key.shape[2] for key, _ in sources]
        of_queries = q, cotangent, normalizer, delta
        queries, *keys = _sides(self.dq_tiles, rows, lengths)
        dq = pl.pallas_call(
            functools.partial(dq_kernel, scale, queries, keys),
            grid=(queries.blocks, heads, batch),
            out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
            **self._options(self.dq_tiles, "attention_dq"),
        )(lists.dq.starts, lists.dq.other, *of_queries, *_of(sources, lists))
        slopes = []
        for n, (key, value) in enumerate(sources):
            queries, side = _sides(self.dkeys_tiles, rows, [lengths[n]])
            dkey, dvalue = pl.pallas_call(
                functools.partial(dkeys_kernel, scale, queries, side),
                grid=(side.blocks, heads, batch),
                out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value)],
                **self._options(self.dkeys_tiles, "attention_dkeys"),
            )(
                lists.dkeys[n].starts,
                lists.dkeys[n].other,
                *of_queries,
                key,
                value,
                lists.asks[n],
                lists.tells[n],
            )
            slopes.append((dkey, dvalue))
        return dq, slopes

    def _forward_tiles(self, rows_of_heads: int, rows: int) -> tuple[Tiles, int]:
        """For so many rows of heads of so many queries; and the programs that share a block."""
        blocks = lambda tiles: rows_of_heads * -(-rows // tiles.queries)
        if blocks(self.forward_tiles) >= self.programs:
            return self.forward_tiles, 1
        return self.few_tiles, max(1, self.programs // blocks(self.few_tiles))

    def _options(self, tiles: Tiles, name: str) -> dict[str, Any]:
        parameters = plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages)
        return {"compiler_params": parameters, "interpret": self.interpret, "name": name}


# Tiles (forward, dq, dkeys, few) by the size of a head. Found by compiling for sm_90a: they fit the
# shared memory, and spill no registers, or few (benchmarks/attention.md).
SMALL = {  # of 16 bits, with 99 KiB of shared memory
    64: (Tiles(128, 128, 8, 3), Tiles(128, 64, 8, 2), Tiles(64, 128, 8, 2), Tiles(64, 64, 4, 3)),
    128: (Tiles(64, 64, 4, 3), Tiles(64, 64, 4, 2), Tiles(64, 64, 8, 3), Tiles(64, 64, 4, 3)),
    256: (Tiles(64, 32, 4, 2), Tiles(32, 64, 4, 1), Tiles(32, 32, 8, 1), Tiles(64, 32, 4, 2)),
}
LARGE = SMALL | {  # of 16 bits, with 163 KiB
    128: (Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 2), Tiles(64, 128, 8, 2), Tiles(64, 64, 4, 3)),
}
FLOAT32 = {  # no matrix unit multiplies it exactly, so sums and factors lie in registers
    64: (Tiles(32, 32, 4, 1),) * 4,
    128: (Tiles(32, 16, 4, 1), Tiles(32, 16, 4, 1), Tiles(16, 32, 4, 1), Tiles(32, 16, 4, 1)),
    256: (Tiles(16, 16, 4, 1),) * 4,
}


def tiled(head_dim: int, dtype: Any, gpu: Any, interpret: bool) -> TritonKernels:
    """Kernels for heads of a size and dtype, on a GPU with `cores` and `shared_memory`.

    Interpreted ones have no registers, and the blocks of 16 bits whatever the dtype.
    """
    table = SMALL if gpu.shared_memory < 163 * 1024 else LARGE
    table = FLOAT32 if dtype == jnp.float32 and not interpret else table
    return TritonKernels(*table[head_dim], programs=2 * gpu.cores, interpret=interpret)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "dq", "dkeys", "asks", "tells"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class _Worklists:
    """Worklists of the kernels, and for each source the integers of queries and of keys, [B, rows,
    n] with n a multiple of all blocks."""

    forward: Worklist
    dq: Worklist
    dkeys: list[Worklist]
    asks: list[jax.Array]
    tells: list[jax.Array]


def _sides(tiles: Tiles, rows: int, keys: Sequence[int]) -> tuple[Side, ...]:
    of = lambda length, most: Side(length, min(most, max(SMALLEST, pl.next_power_of_2(length))))
    return of(rows, tiles.queries), *(of(length, tiles.keys) for length in keys)


def _of(sources: Sequence[Source], lists: _Worklists) -> list[jax.Array]:
    """Keys, values and who sees whom, one source after the other."""
    found = []
    for n, source in enumerate(sources):
        found += [*source, lists.asks[n], lists.tells[n]]
    return found


def _joined(mixed: jax.Array, normalizer: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """What several programs found of the same queries, on the leading axis, as one."""
    top = normalizer.max(0)
    weights = jnp.exp2(normalizer - top[None])
    total = weights.sum(0)
    mixed = (weights[..., None] * mixed).sum(0) / total[..., None]
    return mixed.astype(dtype), top + jnp.log2(total)
