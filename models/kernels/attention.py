"""Block-sparse attention with a custom VJP: the part that the kernels of all chips share.

The equations are those of FlashAttention-2 (Dao, arXiv 2307.08691, Algorithms 1 and 2):

    S = scale · Q Kᵀ    P = exp(S - L)    O = P V                  L: log-sum-exp of a row of S
    D = rowsum(dO ∘ O)  dP = dO Vᵀ        dS = P ∘ (dP - D)
    dQ = scale · dS K   dK = scale · dSᵀ Q    dV = Pᵀ dO

Two things differ. K and V come in several sources under one softmax (the trunk of a document and
its branches). Only the pairs of blocks in a work list (`models.kernels.visits`) are visited.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from models.kernels.visits import RangeMask

Source = tuple[jax.Array, jax.Array]  # keys and values, both [rows, H, S, d]


class Kernels(Protocol):
    """The forward, dq and dkv kernels of a chip, with all block sizes chosen. Hashable.

    Shapes: B rows of the batch, H heads of keys, R queries of a head of keys, S keys of a source,
    d numbers of a head.
    """

    def batch_parts(self, masks: Sequence[RangeMask]) -> int:
        """Return the number of equal parts of the batch that need separate work lists.

        Raises:
          ValueError: If a single row is too long.
        """

    def worklists(self, masks: Sequence[RangeMask], heads: int) -> Any:
        """Return a pytree of arrays with the work lists and mask rows that the kernels read.

        Args:
          masks: one for each source: which of its keys the queries see.
          heads: H.
        """

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first_row: jax.Array,
        worklists: Any,
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the output O [B, H, R, d] in the dtype of q, and the base-2 log-sum-exp of each
        query's scaled scores, float32 [B, H, R]. For a query that sees no key, O is zero and the
        log-sum-exp is unspecified."""

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        worklists: Any,
        scale: float,
        lse: jax.Array,
        delta: jax.Array,
        do: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """Return dQ as q, and (dK, dV) as each source; sources have B rows.

        Args:
          q: [B, H, R, d], as for `forward`.
          sources: as for `forward`.
          worklists: as for `forward`.
          scale: as for `forward`.
          lse: the second result of `forward`.
          delta: D = rowsum(dO ∘ O), float32 [B, H, R].
          do: gradient of the output, as q.
        """


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attention(
    q: jax.Array,
    sources: Sequence[Source],
    first_row: jax.Array,
    worklists: Any,
    scale: float,
    kernels: Kernels,
) -> jax.Array:
    """Attention of queries over the keys of all sources, under one softmax.

    Args:
      q: [B, H, R, d]. The R rows of a head of keys are the queries of all heads that share it.
      sources: keys and values, each [B, H, S, d], or with more rows, such as a cache of all layers.
      first_row: int32 [], row of the sources that belongs to row 0 of q.
      worklists: from `kernels.worklists`.
      scale: factor of the scores.
      kernels: the kernels of the chip.

    Returns:
      O [B, H, R, d] in the dtype of q; zeros for a query that sees no key.

    Raises:
      ValueError: When differentiated, if the sources have more than B rows: their gradient would
        be mostly zeros.
    """
    return kernels.forward(q, sources, first_row, worklists, scale)[0]


def _forward(
    q: jax.Array,
    sources: Sequence[Source],
    first_row: jax.Array,
    worklists: Any,
    scale: float,
    kernels: Kernels,
) -> Any:
    if any(len(key) != len(q) for key, _ in sources):
        raise ValueError(
            "attention over a cache of all layers has no gradient; pass the cache of one layer"
        )
    out, lse = kernels.forward(q, sources, first_row, worklists, scale)
    return out, (q, sources, worklists, out, lse)


def _backward(scale: float, kernels: Kernels, residuals: Any, do: jax.Array) -> Any:
    q, sources, worklists, out, lse = residuals
    delta = (out.astype(jnp.float32) * do.astype(jnp.float32)).sum(-1)
    do = do.astype(q.dtype)
    dq, dkv = kernels.backward(q, sources, worklists, scale, lse, delta, do)
    return dq, type(sources)(dkv), None, None


attention.defvjp(_forward, _backward)
