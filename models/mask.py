"""The attention mask of documents and their branches: one rule.

Every token has four integers (`Coordinates`). Query q sees key k if both are in the same segment,
k's position is not after q's, and k is either in q's branch or in the trunk before the fork of q's
branch. Packing, causality and branching all follow from this rule. A layer with a sliding window
also requires that k is less than a window before q: positions count along the branch, so a window
reaches back through the thought into the trunk.
"""

import flax.struct
import jax
import jax.numpy as jnp

HIDDEN_SCORE = -1e30  # finite, so that the softmax of a query without keys (padding) is finite


@flax.struct.dataclass
class Coordinates:
    """What the mask needs of tokens: four int32 arrays of one shape, mostly [B, S] or [B, N, S]."""

    segment: jax.Array  # number of the document in its row; 0 is padding, which no query sees
    branch: jax.Array  # number of the branch; 0 is the trunk
    position: jax.Array  # tokens from the start of the document along this branch
    fork: jax.Array  # position where the branch leaves the trunk; 0 in the trunk

    @classmethod
    def of_trunk(cls, segment: jax.Array, position: jax.Array) -> "Coordinates":
        """Return the coordinates of trunk tokens with these segments and positions."""
        zero = jnp.zeros_like(segment)
        return cls(segment=segment, branch=zero, position=position, fork=zero)


@flax.struct.dataclass
class Keys:
    """Keys and values with their coordinates.

    Attributes:
      key: [B, kv_heads, S, head_dim] of a trunk, [B, kv_heads, N, S, head_dim] of branches; or of
        all layers, with a leading axis of layers.
      value: as `key`.
      at: coordinates, [B, S] of a trunk, [B, N, S] of branches.
      layer: index of the layer in caches of all layers; None for keys of one layer.
    """

    key: jax.Array
    value: jax.Array
    at: Coordinates
    layer: jax.Array | None = None

    def of_layer(self) -> "Keys":
        """Return the keys and values of that layer alone."""
        if self.layer is None:
            return self
        return Keys(self.key[self.layer], self.value[self.layer], self.at)


Window = int | jax.Array | None  # tokens that a query sees, itself included; None: all of them


def visible(query: Coordinates, key: Coordinates, window: Window = None) -> jax.Array:
    """Return the mask, bool [..., Q, S], of queries [..., Q] over keys [..., S].

    Args:
      query: coordinates of the queries.
      key: coordinates of the keys.
      window: number of tokens that a query sees, itself included; None means no limit.
    """
    q = jax.tree.map(lambda x: x[..., :, None], query)
    k = jax.tree.map(lambda x: x[..., None, :], key)
    same_branch = k.branch == q.branch
    trunk_before_fork = (k.branch == 0) & (k.position < q.fork)
    seen = (
        (k.segment == q.segment)
        & (k.segment > 0)
        & (k.position <= q.position)
        & (same_branch | trunk_before_fork)
    )
    return seen if window is None else seen & (q.position - k.position < window)
