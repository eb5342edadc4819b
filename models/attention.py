"""Attention over documents and their branches: one entry point, named implementations.

Who sees whom is said in `models.mask`, by four integers per token; no implementation takes a dense
mask. Queries come in N groups (branches). All groups see the `shared` keys of their row, which are
never copied per group; group n also sees its `own` keys. A plain packed row is N = 1 with no own
keys.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from models.attention_kernels import PLATFORMS, gpu_attention, refusal, tpu_attention
from models.attention_xla import xla_attention
from models.backend import target
from models.mask import HIDDEN_SCORE, Coordinates, Keys, Window, visible


def attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None = None,
    *,
    scale: float | None = None,
    window: Window = None,
    in_order: bool = False,
    implementation: str | None = None,
) -> jax.Array:
    """Softmax attention of N groups of queries over shared and own keys, under one softmax.

    Args:
      q: queries [B, N, Q, heads, head_dim], not yet scaled.
      at: their coordinates [B, N, Q].
      shared: the trunk's keys, [B, kv_heads, S, head_dim] at [B, S], a document's in order.
      own: keys of each group, [B, kv_heads, N, W, head_dim] at [B, N, W], or None. A group with
        keys of its own is one branch.
      scale: what scores are multiplied by; None is 1 / sqrt(head_dim).
      window: tokens that a query sees, itself included; an int32 scalar may be traced.
      in_order: the queries are the tokens of the shared keys, as one group and in the same order,
        and no token sees a later one of its row. Lets an implementation skip those.
      implementation: a name of `IMPLEMENTATIONS`; None picks the best for the backend.

    Returns:
      Mixed values [B, N, Q, heads, head_dim] in the dtype of q. Softmax is in float32. A query that
      sees no key (padding) gets a finite value without meaning.

    Raises:
      ValueError: if the named implementation does not exist or cannot serve.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    run = IMPLEMENTATIONS[chosen(implementation, q.shape[-1])]
    return run(q, at, shared, own, scale, window, in_order)


def chosen(name: str | None, head_dim: int) -> str:
    """The implementation to use: the one named, or the best for what is traced for.

    Raises:
      ValueError: the one named does not exist, or cannot serve.
    """
    if not name:
        kernels = [name for name in PLATFORMS if target() in PLATFORMS[name]]
        return next((name for name in kernels if not refusal(name, head_dim)), "xla")
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"model.attention={name!r} is not an implementation; use one of "
            f"{sorted(IMPLEMENTATIONS)} or leave it empty"
        )
    if name in PLATFORMS and (reason := refusal(name, head_dim)):
        raise ValueError(f"model.attention={name!r} cannot serve: {reason}; leave it empty")
    return name


def reference_attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    """The rule spelled out with a dense mask over the whole row. For tests: clear, not fast."""
    head_dim = q.shape[-1]
    row = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # [B, N, W, …] -> [B, N·W, …]
    heads = lambda x: x.reshape(*x.shape[:2], -1, head_dim)  # [B, kv, N, W, …] -> [B, kv, N·W, …]
    key, value, key_at = shared.key, shared.value, shared.at
    if own is not None:
        join = lambda a, b, axis: jnp.concatenate([a, b], axis=axis)
        key, value = join(key, heads(own.key), 2), join(value, heads(own.value), 2)
        key_at = jax.tree.map(lambda a, b: join(a, row(b), 1), key_at, own.at)
    repeat = q.shape[3] // key.shape[1]
    key = jnp.repeat(key, repeat, axis=1).astype(jnp.float32)
    value = jnp.repeat(value, repeat, axis=1).astype(jnp.float32)
    mask = visible(jax.tree.map(row, at), key_at, window)  # [B, N·Q, S + N·W]
    scores = jnp.einsum("bqhd,bhkd->bhqk", row(q).astype(jnp.float32), key) * scale
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, HIDDEN_SCORE), axis=-1)
    return jnp.einsum("bhqk,bhkd->bqhd", weights, value).reshape(q.shape).astype(q.dtype)


IMPLEMENTATIONS: dict[str, Callable] = {
    "reference": reference_attention,
    "xla": xla_attention,
    "pallas_tpu": tpu_attention,
    "pallas_gpu": gpu_attention,
}
