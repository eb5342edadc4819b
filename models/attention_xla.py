"""Attention as plain batched matmuls: the implementation for a CPU, and where no kernel serves."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.backend import choices
from models.mask import HIDDEN_SCORE, Coordinates, Keys, Window, visible


def xla_attention(
    q: jax.Array,
    at: Coordinates,
    shared: Keys,
    own: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    """Plain batched matmuls, a bounded number of scores at a time, forward and backward.

    All groups meet the shared keys in one matmul, so those are read once per row; each group meets
    its own keys, [Q, W] and never [Q, N·W]; a common maximum joins the parts under one softmax. The
    backward pass computes the scores again from the kept normalizers instead of storing them.
    """
    batch, groups, length, heads, head_dim = q.shape
    kv_heads = shared.key.shape[1]
    q = (q * scale).reshape(batch, groups, length, kv_heads, -1, head_dim)
    q = q.transpose(0, 3, 1, 4, 2, 5)  # [B, kv, N, repeat, Q, head_dim]
    parts = _in_order(q, at, shared, window) if in_order else _in_parts(q, at, shared, own, window)
    return parts.transpose(0, 2, 4, 1, 3, 5).reshape(batch, groups, length, heads, head_dim)


QUERY_BLOCK = 128  # queries of a trunk that are one group, where there are so many
EXTENTS = 8  # a trunk's queries are cut into at most so many runs, each with the keys up to its end


def query_runs(length: int) -> list[tuple[int, int]]:
    """First query of every run of a trunk of `length` tokens, and the end of its keys too."""
    run = QUERY_BLOCK * -(-length // (QUERY_BLOCK * EXTENTS))
    return [(start, min(start + run, length)) for start in range(0, length, run)]


def _in_order(q: jax.Array, at: Coordinates, shared: Keys, window: Window) -> jax.Array:
    """Trunk queries in runs, each over the keys up to its end: little more than half the pairs."""
    batch, kv_heads, _, repeat, length, head_dim = q.shape
    found = []
    for start, stop in query_runs(length):
        groups = 1 if (stop - start) % QUERY_BLOCK else (stop - start) // QUERY_BLOCK
        part = q[:, :, 0, :, start:stop].reshape(batch, kv_heads, repeat, groups, -1, head_dim)
        part_at = jax.tree.map(lambda x: x[:, 0, start:stop].reshape(batch, groups, -1), at)  # noqa: B023
        keys = Keys(
            shared.key[:, :, :stop],
            shared.value[:, :, :stop],
            jax.tree.map(lambda x: x[:, :stop], shared.at),  # noqa: B023
        )
        mixed = _in_parts(part.transpose(0, 1, 3, 2, 4, 5), part_at, keys, None, window)
        mixed = mixed.transpose(0, 1, 3, 2, 4, 5)
        found.append(mixed.reshape(batch, kv_heads, 1, repeat, stop - start, head_dim))
    return jnp.concatenate(found, axis=4)


@jax.custom_vjp
def _in_parts(
    q: jax.Array, at: Coordinates, shared: Keys, own: Keys | None, window: Window
) -> jax.Array:
    """Mixed values of scaled queries, both [B, kv, N, repeat, Q, head_dim]."""
    return _forward(q, at, shared, own, window)[0]


Kept = tuple[jax.Array, Coordinates, Keys, Keys | None, Window, jax.Array, jax.Array]


def _forward(
    q: jax.Array, at: Coordinates, shared: Keys, own: Keys | None, window: Window
) -> tuple[jax.Array, Kept]:
    """The mixed values, and what the gradient needs: a normalizer per query, but no scores."""

    def some(inputs):
        q, at, own = inputs
        scores = _scores(q, at, shared, own, window)
        top = functools.reduce(jnp.maximum, [part.max(axis=-1, keepdims=True) for part in scores])
        weights = [jnp.exp(part - top) for part in scores]
        total = _added([part.sum(axis=-1, keepdims=True) for part in weights])
        both = zip(weights, _both(shared, own), strict=True)
        mixed = _added([_mix(part, keys.value) for part, keys in both])
        return (mixed / total).astype(q.dtype), top + jnp.log(total)

    mixed, normalizer = _over_groups(some, (q, at, own), _chunks(q, shared, own))
    return mixed, (q, at, shared, own, window, mixed, normalizer)


def _backward(kept: Kept, cotangent: jax.Array) -> tuple:
    q, at, shared, own, window, mixed, normalizer = kept

    def some(inputs):
        q, at, own, mixed, normalizer, cotangent = inputs
        scores = _scores(q, at, shared, own, window)
        slope = jnp.sum(mixed.astype(jnp.float32) * cotangent, axis=-1, keepdims=True)
        dq, dkeys = [], []
        for part, keys in zip(scores, _both(shared, own), strict=True):
            weights = jnp.exp(part - normalizer)
            dscores = weights * (_score(cotangent, keys.value) - slope)
            dq.append(_mix(dscores, keys.key))
            dkeys.append((_gather(dscores, q, keys.key), _gather(weights, cotangent, keys.key)))
        return _added(dq).astype(q.dtype), dkeys[1:], dkeys[0]

    inputs = (q, at, own, mixed, normalizer, cotangent)
    dq, down, dshared = _over_groups(some, inputs, _chunks(q, shared, own), summed=True)
    no_slope: Any = None  # coordinates are integers
    dkeys = [
        Keys(dkey.astype(keys.key.dtype), dvalue.astype(keys.value.dtype), no_slope)
        for (dkey, dvalue), keys in zip([dshared, *down], _both(shared, own), strict=True)
    ]
    return dq, None, dkeys[0], dkeys[1] if own is not None else None, None


_in_parts.defvjp(_forward, _backward)


def _added(parts: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _both(shared: Keys, own: Keys | None) -> tuple[Keys, ...]:
    return (shared,) if own is None else (shared, own)


def _chunks(q: jax.Array, shared: Keys, own: Keys | None) -> int:
    """Into how many runs of groups the work is cut; divides their number.

    The bound is per row of documents, so that how a document is computed does not depend on its
    neighbours.
    """
    _, kv_heads, groups, repeat, length, _ = q.shape
    keys = sum(part.key.shape[-2] for part in _both(shared, own))
    wanted = groups * kv_heads * repeat * length * keys / choices().row_scores
    return next(n for n in range(1, groups + 1) if groups % n == 0 and (n >= wanted or n == groups))


def _over_groups(run: Callable, inputs: Any, chunks: int, summed: bool = False) -> Any:
    """`run` on all groups, a chunk of them at a time.

    Args:
      run: inputs to outputs, both with the groups in dimension 2 (of coordinates: 1).
      inputs: of all groups.
      chunks: how many.
      summed: the last output of `run` has no groups and is added up.
    """
    if chunks == 1:
        return run(inputs)

    def split(x, axis):
        x = x.reshape(*x.shape[:axis], chunks, -1, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    def join(x):
        x = jnp.moveaxis(x, 0, 2)
        return x.reshape(*x.shape[:2], -1, *x.shape[4:])

    axis = lambda x: 1 if jnp.issubdtype(x.dtype, jnp.integer) else 2
    pieces = jax.tree.map(lambda x: split(x, axis(x)), inputs)
    if not summed:
        return jax.tree.map(join, jax.lax.map(run, pieces))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(run, jax.tree.map(lambda x: x[0], pieces))[-1],
    )

    def add(sums, piece):
        *each, extra = run(piece)
        return jax.tree.map(jnp.add, sums, extra), each

    sums, each = jax.lax.scan(add, zeros, pieces)
    return *jax.tree.map(join, each), sums


def _scores(
    q: jax.Array, at: Coordinates, shared: Keys, own: Keys | None, window: Window
) -> list[jax.Array]:
    """Float32 scores [B, kv, N, repeat, Q, S or W] against the shared and then the own keys."""
    row = jax.tree.map(lambda x: x[:, None], shared.at)  # [B, 1, S]
    found = []
    for keys, key_at in zip(_both(shared, own), (row, own and own.at), strict=False):
        mask = visible(at, key_at, window)[:, None, :, None]  # [B, 1, N, 1, Q, S or W]
        found.append(jnp.where(mask, _score(q, keys.key), HIDDEN_SCORE))
    return found


def _score(q: jax.Array, key: jax.Array) -> jax.Array:
    """q [B, kv, N, repeat, Q, d] times shared [B, kv, S, d] or own [B, kv, N, W, d] keys."""
    rows = _rows(q, key)
    found = jnp.matmul(rows, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    return found.reshape(*q.shape[:-1], key.shape[-2])


def _mix(weights: jax.Array, value: jax.Array) -> jax.Array:
    """weights [B, kv, N, repeat, Q, S or W] times values; float32 [B, kv, N, repeat, Q, d]."""
    rows = _rows(weights.astype(value.dtype), value)
    found = jnp.matmul(rows, value, preferred_element_type=jnp.float32)
    return found.reshape(*weights.shape[:-1], value.shape[-1])


def _gather(weights: jax.Array, q: jax.Array, key: jax.Array) -> jax.Array:
    """Sum over the queries of weights [B, kv, N, repeat, Q, S or W] times q [..., d]; as `key`."""
    rows = jnp.swapaxes(_rows(weights.astype(q.dtype), key), -1, -2)
    return jnp.matmul(rows, _rows(q, key), preferred_element_type=jnp.float32)


def _rows(x: jax.Array, key: jax.Array) -> jax.Array:
    """[B, kv, N, repeat, Q, …] as the rows that meet shared keys, [B, kv, rows, …], or own ones,
    [B, kv, N, rows, …]."""
    return x.reshape(*x.shape[: key.ndim - 2], -1, x.shape[-1])
