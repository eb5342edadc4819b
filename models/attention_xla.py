"""Attention as plain batched matmuls: for CPUs, and for devices without a kernel."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.backend import choices
from models.mask import HIDDEN_SCORE, Coordinates, Keys, Window, visible
from models.products import operands, transposed


def xla_attention(
    q: jax.Array,
    at: Coordinates,
    trunk: Keys,
    branch: Keys | None,
    scale: float,
    window: Window,
    in_order: bool,
) -> jax.Array:
    """Attention as batched matmuls with a bounded number of scores at a time, in both passes.

    One matmul multiplies the queries of all groups by the trunk keys, which are thus read once per
    row. Each group is multiplied by its branch keys alone, [Q, W] and never [Q, N·W]. A common
    maximum puts both parts under one softmax. The backward pass recomputes the scores from the
    log-sum-exp instead of storing them. Arguments and result are those of `attention.attention`.
    """
    batch, groups, length, heads, head_dim = q.shape
    kv_heads = trunk.key.shape[1]
    q = (q * scale).reshape(batch, groups, length, kv_heads, -1, head_dim)
    q = q.transpose(0, 3, 1, 4, 2, 5)  # [B, kv, N, repeat, Q, head_dim]
    parts = _in_order(q, at, trunk, window) if in_order else _in_parts(q, at, trunk, branch, window)
    return parts.transpose(0, 2, 4, 1, 3, 5).reshape(batch, groups, length, heads, head_dim)


QUERY_BLOCK = 128  # queries of a trunk are cut into groups of this size if it divides them
MAX_RUNS = 8  # a trunk's queries are cut into at most 8 runs, each with the keys up to its end


def query_runs(length: int) -> list[tuple[int, int]]:
    """Cut a trunk of `length` tokens into runs; return the first query and the end of each.

    The end is also that of the run's keys.
    """
    run = QUERY_BLOCK * -(-length // (QUERY_BLOCK * MAX_RUNS))
    return [(start, min(start + run, length)) for start in range(0, length, run)]


def _in_order(q: jax.Array, at: Coordinates, trunk: Keys, window: Window) -> jax.Array:
    """Attention of a trunk in runs, each over the keys up to its end: about 9/16 of all pairs."""
    batch, kv_heads, _, repeat, length, head_dim = q.shape
    outputs = []
    for start, stop in query_runs(length):
        groups = 1 if (stop - start) % QUERY_BLOCK else (stop - start) // QUERY_BLOCK
        part = q[:, :, 0, :, start:stop].reshape(batch, kv_heads, repeat, groups, -1, head_dim)
        part_at = jax.tree.map(lambda x: x[:, 0, start:stop].reshape(batch, groups, -1), at)  # noqa: B023
        keys = Keys(
            trunk.key[:, :, :stop],
            trunk.value[:, :, :stop],
            jax.tree.map(lambda x: x[:, :stop], trunk.at),  # noqa: B023
        )
        out = _in_parts(part.transpose(0, 1, 3, 2, 4, 5), part_at, keys, None, window)
        out = out.transpose(0, 1, 3, 2, 4, 5)
        outputs.append(out.reshape(batch, kv_heads, 1, repeat, stop - start, head_dim))
    return jnp.concatenate(outputs, axis=4)


@jax.custom_vjp
def _in_parts(
    q: jax.Array, at: Coordinates, trunk: Keys, branch: Keys | None, window: Window
) -> jax.Array:
    """Return the output of scaled queries, both [B, kv, N, repeat, Q, head_dim]."""
    return _forward(q, at, trunk, branch, window)[0]


Residuals = tuple[jax.Array, Coordinates, Keys, Keys | None, Window, jax.Array, jax.Array]


def _forward(
    q: jax.Array, at: Coordinates, trunk: Keys, branch: Keys | None, window: Window
) -> tuple[jax.Array, Residuals]:
    """Return the output and the residuals: a log-sum-exp per query, but no scores."""

    def forward_chunk(inputs):
        q, at, branch = inputs
        scores = _scores(q, at, trunk, branch, window)
        m = functools.reduce(jnp.maximum, [s.max(axis=-1, keepdims=True) for s in scores])
        weights = [jnp.exp(s - m) for s in scores]
        total = _sum([p.sum(axis=-1, keepdims=True) for p in weights])
        sources = zip(weights, _sources(trunk, branch), strict=True)
        out = _sum([_weighted_values(p, keys.value) for p, keys in sources])
        return (out / total).astype(q.dtype), m + jnp.log(total)

    out, lse = _over_groups(forward_chunk, (q, at, branch), _chunks(q, trunk, branch))
    return out, (q, at, trunk, branch, window, out, lse)


def _backward(residuals: Residuals, do: jax.Array) -> tuple:
    q, at, trunk, branch, window, out, lse = residuals

    def backward_chunk(inputs):
        q, at, branch, out, lse, do = inputs
        scores = _scores(q, at, trunk, branch, window)
        delta = jnp.sum(out.astype(jnp.float32) * do, axis=-1, keepdims=True)
        dq, dkv = [], []
        for s, keys in zip(scores, _sources(trunk, branch), strict=True):
            p = jnp.exp(s - lse)
            ds = p * (_score(do, keys.value) - delta)
            dq.append(_weighted_values(ds, keys.key))
            dkv.append((_weighted_queries(ds, q, keys.key), _weighted_queries(p, do, keys.key)))
        return _sum(dq).astype(q.dtype), dkv[1:], dkv[0]

    inputs = (q, at, branch, out, lse, do)
    chunks = _chunks(q, trunk, branch)
    dq, down, dtrunk = _over_groups(backward_chunk, inputs, chunks, sum_last=True)
    no_gradient: Any = None  # coordinates are integers
    dkeys = [
        Keys(dk.astype(keys.key.dtype), dv.astype(keys.value.dtype), no_gradient)
        for (dk, dv), keys in zip([dtrunk, *down], _sources(trunk, branch), strict=True)
    ]
    return dq, None, dkeys[0], dkeys[1] if branch is not None else None, None


_in_parts.defvjp(_forward, _backward)


def _sum(parts: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _sources(trunk: Keys, branch: Keys | None) -> tuple[Keys, ...]:
    return (trunk,) if branch is None else (trunk, branch)


def _chunks(q: jax.Array, trunk: Keys, branch: Keys | None) -> int:
    """Return the number of equal chunks into which the groups are cut; it divides their number.

    The limit on scores is per row of documents, so that the computation of a document does not
    depend on the other rows of its batch.
    """
    _, kv_heads, groups, repeat, length, _ = q.shape
    keys = sum(part.key.shape[-2] for part in _sources(trunk, branch))
    wanted = groups * kv_heads * repeat * length * keys / choices().row_scores
    return next(n for n in range(1, groups + 1) if groups % n == 0 and (n >= wanted or n == groups))


def _over_groups(run: Callable, inputs: Any, chunks: int, sum_last: bool = False) -> Any:
    """Apply `run` to all groups, one chunk of them at a time.

    Args:
      run: maps inputs to outputs, both with groups on axis 2 (axis 1 in coordinates).
      inputs: of all groups.
      chunks: number of chunks.
      sum_last: the last output of `run` has no axis of groups and is summed over the chunks.
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
    if not sum_last:
        return jax.tree.map(join, jax.lax.map(run, pieces))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(run, jax.tree.map(lambda x: x[0], pieces))[-1],
    )

    def add(sums, piece):
        *outputs, last = run(piece)
        return jax.tree.map(jnp.add, sums, last), outputs

    sums, outputs = jax.lax.scan(add, zeros, pieces)
    return *jax.tree.map(join, outputs), sums


def _scores(
    q: jax.Array, at: Coordinates, trunk: Keys, branch: Keys | None, window: Window
) -> list[jax.Array]:
    """Return masked float32 scores [B, kv, N, repeat, Q, S or W] of the trunk, then branch keys."""
    row = jax.tree.map(lambda x: x[:, None], trunk.at)  # [B, 1, S]
    scores = []
    for keys, key_at in zip(_sources(trunk, branch), (row, branch and branch.at), strict=False):
        mask = visible(at, key_at, window)[:, None, :, None]  # [B, 1, N, 1, Q, S or W]
        scores.append(jnp.where(mask, _score(q, keys.key), HIDDEN_SCORE))
    return scores


def _score(q: jax.Array, key: jax.Array) -> jax.Array:
    """Score q [B, kv, N, repeat, Q, d] against keys [B, kv, S, d] or [B, kv, N, W, d]."""
    rows = _rows(q, key)
    factors = operands(rows, jnp.swapaxes(key, -1, -2))
    scores = jnp.matmul(*factors, preferred_element_type=jnp.float32)
    return scores.reshape(*q.shape[:-1], key.shape[-2])


def _weighted_values(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Weights [B, kv, N, repeat, Q, S or W] times values; float32 [B, kv, N, repeat, Q, d]."""
    rows = _rows(weights.astype(value.dtype), value)
    out = jnp.matmul(*operands(rows, value), preferred_element_type=jnp.float32)
    return out.reshape(*weights.shape[:-1], value.shape[-1])


def _weighted_queries(weights: jax.Array, q: jax.Array, key: jax.Array) -> jax.Array:
    """Sum weights [B, kv, N, repeat, Q, S or W] times q [..., d] over queries; shaped as `key`."""
    rows = transposed(_rows(weights.astype(q.dtype), key))
    return jnp.matmul(*operands(rows, _rows(q, key)), preferred_element_type=jnp.float32)


def _rows(x: jax.Array, key: jax.Array) -> jax.Array:
    """Reshape [B, kv, N, repeat, Q, …] to the rows of a matmul with `key`: [B, kv, rows, …] for
    trunk keys, [B, kv, N, rows, …] for branch keys."""
    return x.reshape(*x.shape[: key.ndim - 2], -1, x.shape[-1])
