"""Who sees whom among documents and their branches: one rule.

Every token carries four integers (`Coordinates`). Query q sees key k when their segment is the
same, k's position is not after q's, and k is of q's own branch or of the trunk before the place
where q's branch left it. Packing, causality and branching are all this one rule. A layer with a
sliding window also asks that k is near: positions count along the branch, so a window reaches back
through the thought into the trunk.
"""

import flax.struct
import jax
import jax.numpy as jnp

HIDDEN_SCORE = -1e30  # finite, so that a query that sees nothing (padding) stays finite


@flax.struct.dataclass
class Coordinates:
    """Where tokens stand. Four int32 arrays of one shape, usually [B, S] or [B, N, S]."""

    segment: jax.Array  # which document of the row; 0 is padding, seen by nobody
    branch: jax.Array  # 0 is the trunk
    position: jax.Array  # tokens from the start of the document along this branch
    fork: jax.Array  # position where the branch left the trunk; 0 in the trunk

    @classmethod
    def of_trunk(cls, segment: jax.Array, position: jax.Array) -> "Coordinates":
        """Coordinates of trunk tokens."""
        zero = jnp.zeros_like(segment)
        return cls(segment=segment, branch=zero, position=position, fork=zero)


@flax.struct.dataclass
class Keys:
    """Keys and values, heads before tokens, with their coordinates: shared [B, kv_heads, S,
    head_dim] at [B, S], or own [B, kv_heads, N, S, head_dim] at [B, N, S]; or those of all layers,
    with an axis of layers in front, and which one is meant."""

    key: jax.Array
    value: jax.Array
    at: Coordinates
    layer: jax.Array | None = None

    def of_layer(self) -> "Keys":
        """Of that layer alone."""
        if self.layer is None:
            return self
        return Keys(self.key[self.layer], self.value[self.layer], self.at)


Window = int | jax.Array | None  # tokens that a query sees, itself included; None is all


def visible(query: Coordinates, key: Coordinates, window: Window = None) -> jax.Array:
    """The rule. Coordinates [..., Q] and [..., S] give bool [..., Q, S]."""
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
