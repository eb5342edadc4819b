"""Attention over blocks that meet, with a backward pass: what the kernels of all chips share."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from models.kernels.visits import Sight

Source = tuple[jax.Array, jax.Array]  # keys and values, both [rows, H, S, d]


class Kernels(Protocol):
    """The three kernels of a chip, with all sizes chosen. Hashable."""

    def parts(self, sights: Sequence[Sight]) -> int:
        """Into how many parts of as many rows a batch must be cut, with worklists of their own.

        Raises:
          ValueError: a single row is too long.
        """

    def worklists(self, sights: Sequence[Sight], heads: int) -> Any:
        """What the kernels need to know of who sees whom: arrays, a pytree.

        Args:
          sights: of each source, what the queries see of it.
          heads: H.
        """

    def forward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        first: jax.Array,
        lists: Any,
        scale: float,
    ) -> tuple[jax.Array, jax.Array]:
        """The mixed values [B, H, R, d] as q, and of each query the logarithm to the base 2 of its
        normalizer, float32 [B, H, R]; of a query that sees nothing, zeros and any number."""

    def backward(
        self,
        q: jax.Array,
        sources: Sequence[Source],
        lists: Any,
        scale: float,
        normalizer: jax.Array,
        delta: jax.Array,
        cotangent: jax.Array,
    ) -> tuple[jax.Array, list[Source]]:
        """Gradients as q and as the sources, which have B rows; delta [B, H, R] is the sum of
        cotangent · mixed of a query."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attention(
    q: jax.Array,
    sources: Sequence[Source],
    first: jax.Array,
    lists: Any,
    scale: float,
    kernels: Kernels,
) -> jax.Array:
    """Attention of queries over all sources of keys, under one softmax.

    Args:
      q: [B, H, R, d]; the queries of all heads that share a head of keys are rows of that one.
      sources: keys and values, each [B, H, S, d], or of more rows, such as those of all layers.
      first: the row of the sources that belongs to the first of q, int32 [].
      lists: of the kernels.
      scale: of the scores.
      kernels: of the chip.

    Returns:
      Mixed values [B, H, R, d] as q; zeros for a query that sees no key.

    Raises:
      ValueError: a gradient for sources of more than B rows, which would be mostly zeros.
    """
    return kernels.forward(q, sources, first, lists, scale)[0]


def _forward(
    q: jax.Array,
    sources: Sequence[Source],
    first: jax.Array,
    lists: Any,
    scale: float,
    kernels: Kernels,
) -> Any:
    if any(len(key) != len(q) for key, _ in sources):
        raise ValueError("attention to caches of all layers has no gradient; give it one layer's")
    mixed, normalizer = kernels.forward(q, sources, first, lists, scale)
    return mixed, (q, sources, lists, mixed, normalizer)


def _backward(scale: float, kernels: Kernels, kept: Any, cotangent: jax.Array) -> Any:
    q, sources, lists, mixed, normalizer = kept
    delta = (mixed.astype(jnp.float32) * cotangent.astype(jnp.float32)).sum(-1)
    cotangent = cotangent.astype(q.dtype)
    dq, slopes = kernels.backward(q, sources, lists, scale, normalizer, delta, cotangent)
    return dq, type(sources)(slopes), None, None


attention.defvjp(_forward, _backward)
