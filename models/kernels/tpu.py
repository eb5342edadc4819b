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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from models.kernels.attention import Source
from models.kernels.blocks import LOG2_E, Side, asking, telling
from models.kernels.tpu_bodies import LANES, dkeys_kernel, dq_kernel, forward_kernel
from models.kernels.tpu_grid import SUBLANES, Operand, Steps, Walk, Worklists
from models.kernels.visits import Sight, by_keys, by_queries, meetings, pairs_offered

SCALARS = 3 * 2**16  # steps' integers at a time: three quarters of a TPU's scalar memory, 1 MiB


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

    def worklists(self, sights: Sequence[Sight], heads: int) -> Worklists:
        """See `attention.Kernels`."""
        queries = self._queries(sights[0].queries)
        keys = [self._keys(sight.keys) for sight in sights]
        met = [meetings(s, queries.block, k.block) for s, k in zip(sights, keys, strict=True)]
        return Worklists(
            by_queries=Steps.of(by_queries(met, idle=True), len(sights)),
            by_keys=[Steps.of(by_keys(m, idle=True), 1) for m in met],
            asks=[_integers(queries.pad(asking(sight))) for sight in sights],
            tells=[_integers(k.pad(telling(s))) for s, k in zip(sights, keys, strict=True)],
        )

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first: jax.Array,
        lists: Worklists,
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """See `attention.Kernels`."""
        walk = self._by_queries(q, sources, lists, first)
        queries = walk.sides[0]
        normalizers = jax.ShapeDtypeStruct((*q.shape[:2], 1, queries.padded), jnp.float32)
        mixed, normalizer = walk.call(
            functools.partial(forward_kernel, scale * LOG2_E, walk.sides[1:]),
            [walk.vectors(0, q), *walk.of_sources(sources, lists)],
            [walk.vectors(0, q), walk.numbers(0, normalizers)],
            [(queries.block, LANES), (queries.block, LANES), (queries.block, q.shape[-1])],
        )
        return mixed, normalizer[:, :, 0, : queries.length]

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        lists: Worklists,
        scale: float,
        normalizer: jax.Array,
        delta: jax.Array,
        cotangent: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """See `attention.Kernels`."""
        queries = self._queries(q.shape[2])
        per_query = [queries.pad(x[:, :, None]) for x in (normalizer, delta)]

        def of_queries(walk: Walk, side: int) -> list[Operand]:
            vectors = [walk.vectors(side, x) for x in (q, cotangent)]
            return vectors + [walk.numbers(side, x) for x in per_query]

        walk = self._by_queries(q, sources, lists)
        (dq,) = walk.call(
            functools.partial(dq_kernel, scale, walk.sides[1:]),
            [*of_queries(walk, 0), *walk.of_sources(sources, lists)],
            [walk.vectors(0, q)],
            [(queries.block, LANES), (queries.block, LANES), (queries.block, q.shape[-1])],
        )
        slopes = []
        for n, source in enumerate(sources):
            sides = self._keys(source[0].shape[2]), queries
            walk = Walk(lists.by_keys[n], sides, q.shape[1], jnp.int32(0), self.interpret)
            of_keys = [walk.vectors(0, x) for x in source]
            integers = [walk.integers(1, lists.asks[n]), walk.integers(0, lists.tells[n])]
            dkey, dvalue = walk.call(
                functools.partial(dkeys_kernel, scale, queries),
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
        lists: Worklists,
        first: jax.Array | int = 0,
    ) -> Walk:
        sides = self._queries(q.shape[2]), *(self._keys(key.shape[2]) for key, _ in sources)
        return Walk(lists.by_queries, sides, q.shape[1], jnp.int32(first), self.interpret)


def _side(length: int, limit: int) -> Side:
    return Side(length, limit if length > limit else -(-length // 16) * 16)


def _integers(x: jax.Array) -> jax.Array:
    """[B, rows, n] as [B, 1, 8, n]."""
    return jnp.pad(x[:, None], [(0, 0), (0, 0), (0, SUBLANES - x.shape[1]), (0, 0)])
