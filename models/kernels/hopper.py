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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from models.kernels import warpgroups
from models.kernels.attention import Source
from models.kernels.blocks import CLASS, LOG2_E, Side, asking, telling
from models.kernels.hopper_walk import BLOCK, Walk, Worklists
from models.kernels.visits import Sight, Worklist, by_keys, by_queries, meetings

SUMS = 128 * 128  # of a row's keys at a time times a head's numbers: as the registers allow


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

    def worklists(self, sights: Sequence[Sight], heads: int) -> Worklists:
        """See `attention.Kernels`."""
        whole = lambda x: Side(x.shape[-1], BLOCK).pad(x)
        return Worklists(
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
        lists: Worklists,
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
        lists: Worklists,
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
            walk = Walk(lists.dkeys[n], sides, False, self.stages, self.interpret)
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
    ) -> Walk:
        sides = Side(q.shape[2], BLOCK), *(Side(key.shape[2], block) for key, _ in sources)
        return Walk(work, sides, True, self.stages, self.interpret)


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
