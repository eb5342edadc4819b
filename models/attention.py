"""Attention over documents and their branches: one rule, one entry point, named implementations.

Every token carries four integers (`Coordinates`). Query q sees key k when their segment is the
same, k's position is not after q's, and k is of q's own branch or of the trunk before the place
where q's branch left it. Packing, causality and branching are all this one rule; no implementation
takes a dense mask.

Queries come in N groups (branches). All groups see the `shared` keys of their row, which are never
copied per group; group n also sees its `own` keys. A plain packed row is N = 1 with no own keys.
"""

from collections.abc import Callable

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
    """Keys and values with their coordinates: shared [B, S, kv_heads, head_dim] at [B, S], or own
    [B, N, S, kv_heads, head_dim] at [B, N, S]."""

    key: jax.Array
    value: jax.Array
    at: Coordinates


def visible(query: Coordinates, key: Coordinates) -> jax.Array:
    """The rule. Coordinates [..., Q] and [..., S] give bool [..., Q, S]."""
    q = jax.tree.map(lambda x: x[..., :, None], query)
    k = jax.tree.map(lambda x: x[..., None, :], key)
    same_branch = k.branch == q.branch
    trunk_before_fork = (k.branch == 0) & (k.position < q.fork)
    return (
        (k.segment == q.segment)
        & (k.segment > 0)
        & (k.position <= q.position)
        & (same_branch | trunk_before_fork)
    )


def attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None = None,
    *,
    implementation: str | None = None,
) -> jax.Array:
    """Softmax attention of N groups of queries over shared and own keys, under one softmax.

    Args:
      q: queries [B, N, Q, heads, head_dim], not yet scaled.
      at: their coordinates [B, N, Q].
      shared: keys that all groups of a row see, [B, S, kv_heads, head_dim] at [B, S].
      own: keys of each group, [B, N, W, kv_heads, head_dim] at [B, N, W], or None.
      implementation: a name of `IMPLEMENTATIONS`; None picks the best for the backend.

    Returns:
      Mixed values [B, N, Q, heads, head_dim] in the dtype of q. Softmax is in float32. A query that
      sees no key (padding) gets a finite value without meaning.

    Raises:
      ValueError: if the named implementation does not exist.
    """
    name = implementation or "xla"
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"model.attention={name!r} is not an implementation; use one of "
            f"{sorted(IMPLEMENTATIONS)} or leave it empty"
        )
    return IMPLEMENTATIONS[name](q, at, shared, own)


def reference_attention(q: jax.Array, at: Coordinates, shared: Keys, own: Keys | None) -> jax.Array:
    """The rule spelled out with a dense mask over the whole row. For tests: clear, not fast."""
    batch, groups, length, heads, head_dim = q.shape
    flat = lambda x: x.reshape(batch, -1, *x.shape[3:])  # [B, N, W, …] -> [B, N·W, …]
    key, value, key_at = shared.key, shared.value, shared.at
    if own is not None:
        join = lambda a, b: jnp.concatenate([a, flat(b)], axis=1)
        key, value = join(key, own.key), join(value, own.value)
        key_at = jax.tree.map(join, key_at, own.at)
    repeat = heads // key.shape[2]
    key = jnp.repeat(key, repeat, axis=2).astype(jnp.float32)
    value = jnp.repeat(value, repeat, axis=2).astype(jnp.float32)
    mask = visible(jax.tree.map(flat, at), key_at)  # [B, N·Q, S + N·W]
    scores = jnp.einsum("bqhd,bkhd->bhqk", flat(q).astype(jnp.float32), key) / head_dim**0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, HIDDEN_SCORE), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(q.shape).astype(q.dtype)


def xla_attention(q: jax.Array, at: Coordinates, shared: Keys, own: Keys | None) -> jax.Array:
    """Plain batched matmuls: all groups against the shared keys at once, each against its own.

    Both parts meet under one softmax through a common maximum, so the shared keys are read once per
    row and the own scores are [Q, W] per group, never [Q, N·W].
    """
    batch, groups, length, heads, head_dim = q.shape
    kv_heads = shared.key.shape[2]
    repeat = heads // kv_heads
    q = (q * head_dim**-0.5).reshape(batch, groups, length, kv_heads, repeat, head_dim)
    q = q.transpose(0, 3, 1, 4, 2, 5)  # [B, kv, N, repeat, Q, head_dim]
    scores = [_shared_scores(q, at, shared)]
    if own is not None:
        scores.append(_own_scores(q, at, own))
    top = jax.lax.stop_gradient(
        jnp.max(jnp.stack([s.max(axis=-1, keepdims=True) for s in scores]), axis=0)
    )
    weights = [jnp.exp(s - top) for s in scores]
    total = sum(w.sum(axis=-1, keepdims=True) for w in weights)
    value = shared.value.transpose(0, 2, 1, 3)  # [B, kv, S, head_dim]
    mixed = jnp.matmul(
        weights[0].astype(value.dtype).reshape(batch, kv_heads, -1, value.shape[2]),
        value,
        preferred_element_type=jnp.float32,
    ).reshape(q.shape)
    if own is not None:
        value = own.value.transpose(0, 3, 1, 2, 4)  # [B, kv, N, W, head_dim]
        mixed += jnp.matmul(
            weights[1].astype(value.dtype).reshape(*q.shape[:3], -1, value.shape[3]),
            value,
            preferred_element_type=jnp.float32,
        ).reshape(q.shape)
    mixed = (mixed / total).astype(q.dtype)
    return mixed.transpose(0, 2, 4, 1, 3, 5).reshape(batch, groups, length, heads, head_dim)


def _shared_scores(q: jax.Array, at: Coordinates, keys: Keys) -> jax.Array:
    """Float32 scores [B, kv, N, repeat, Q, S] of all groups against the keys of the row."""
    batch, kv_heads, *_, head_dim = q.shape
    key = keys.key.transpose(0, 2, 3, 1)  # [B, kv, head_dim, S]
    scores = jnp.matmul(
        q.reshape(batch, kv_heads, -1, head_dim), key, preferred_element_type=jnp.float32
    ).reshape(*q.shape[:-1], key.shape[-1])
    to_row = jax.tree.map(lambda x: x[:, None], keys.at)  # [B, 1, S]
    mask = visible(at, to_row)[:, None, :, None]  # [B, 1, N, 1, Q, S]
    return jnp.where(mask, scores, HIDDEN_SCORE)


def _own_scores(q: jax.Array, at: Coordinates, keys: Keys) -> jax.Array:
    """Float32 scores [B, kv, N, repeat, Q, W] of each group against its own keys."""
    key = keys.key.transpose(0, 3, 1, 4, 2)  # [B, kv, N, head_dim, W]
    scores = jnp.matmul(
        q.reshape(*q.shape[:3], -1, q.shape[-1]), key, preferred_element_type=jnp.float32
    ).reshape(*q.shape[:-1], key.shape[-1])
    mask = visible(at, keys.at)[:, None, :, None]  # [B, 1, N, 1, Q, W]
    return jnp.where(mask, scores, HIDDEN_SCORE)


IMPLEMENTATIONS: dict[str, Callable] = {"reference": reference_attention, "xla": xla_attention}
