"""Every attention implementation is the rule of the mask, forward and backward."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.attention import IMPLEMENTATIONS, attention
from models.attention_xla import EXTENTS, query_runs
from models.mask import Coordinates, Keys, visible
from tests import tiny

B, N, Q, S, W, HEAD_DIM = 2, 3, 4, 11, 5, 8
# Query heads, key heads, own keys or none, window.
SHAPES = [(4, 2, True, None), (4, 2, False, None), (3, 3, True, None), (4, 2, True, 3)]


def random_coordinates(random, own: bool):
    """Two documents and padding in a row; branches of random documents, with dead slots."""
    segment = np.zeros((B, S), np.int32)
    position = np.zeros((B, S), np.int32)
    for row in range(B):
        first, second = random.integers(2, 6, 2)
        segment[row, :first], segment[row, first : first + second] = 1, 2
        position[row, :first] = np.arange(first)
        position[row, first : first + second] = np.arange(second)
    trunk = Coordinates.of_trunk(jnp.asarray(segment), jnp.asarray(position))

    def slots(width, start):
        fork = random.integers(1, 4, (B, N, 1))
        live = random.random((B, N, width)) < 0.7
        document = random.integers(1, 3, (B, N, 1))
        spread = lambda x: jnp.asarray(np.broadcast_to(x, (B, N, width)).astype(np.int32))
        return (
            fork,
            document,
            lambda: Coordinates(
                segment=spread(np.where(live, document, 0)),
                branch=spread(np.arange(1, N + 1)[None, :, None]),
                position=spread(fork + start + np.arange(width)),
                fork=spread(fork),
            ),
        )

    fork, document, queries = slots(Q, 1)
    query = queries()
    if not own:
        return query, trunk, None
    live = jnp.asarray(random.random((B, N, W)) < 0.7)
    spread = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (B, N, W))
    key = Coordinates(
        segment=jnp.where(live, spread(document), 0),
        branch=spread(np.arange(1, N + 1)[None, :, None]),
        position=spread(fork + np.arange(W)),
        fork=spread(fork),
    )
    return query, trunk, key


def random_case(seed: int, heads: int, kv_heads: int, own: bool, dtype=jnp.float32):
    random = np.random.default_rng(seed)
    query_at, trunk_at, own_at = random_coordinates(random, own)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
    q = draw(B, N, Q, heads, HEAD_DIM)
    arrays = {"q": q, "k": draw(B, S, kv_heads, HEAD_DIM), "v": draw(B, S, kv_heads, HEAD_DIM)}
    if own:
        arrays["own_k"] = draw(B, N, W, kv_heads, HEAD_DIM)
        arrays["own_v"] = draw(B, N, W, kv_heads, HEAD_DIM)
    return arrays, query_at, trunk_at, own_at, draw(*q.shape)


def by_loops(arrays, query_at, trunk_at, own_at, window=None):
    """Attention query by query and key by key, in float64, from the rule as the design words it."""
    window = window or 1000
    a = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
    q, out = a["q"], np.zeros(a["q"].shape)
    seen = np.zeros(q.shape[:3], bool)
    at = lambda c, *i: [int(x[i]) for x in (c.segment, c.branch, c.position, c.fork)]
    repeat = q.shape[3] // a["k"].shape[2]
    for b, n, i in np.ndindex(*q.shape[:3]):
        segment, branch, position, fork = at(query_at, b, n, i)
        keys = [(at(trunk_at, b, j), a["k"][b, j], a["v"][b, j]) for j in range(S)]
        if own_at is not None:
            for m in range(N):
                keys += [
                    (at(own_at, b, m, j), a["own_k"][b, m, j], a["own_v"][b, m, j])
                    for j in range(W)
                ]
        keys = [
            (k, v)
            for (k_segment, k_branch, k_position, _), k, v in keys
            if k_segment == segment > 0
            and position - window < k_position <= position
            and (k_branch == branch or (k_branch == 0 and k_position < fork))
        ]
        seen[b, n, i] = bool(keys)
        for h in range(q.shape[3] if keys else 0):
            scores = np.array([k[h // repeat] @ q[b, n, i, h] for k, _ in keys]) / HEAD_DIM**0.5
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out[b, n, i, h] = sum(
                w * v[h // repeat] for w, (_, v) in zip(weights, keys, strict=True)
            )
    return out, seen


@functools.partial(tiny.jit, static_argnames="name")
def forward_and_vjp(arrays, query_at, trunk_at, own_at, cotangent, name, window=None):
    def run(arrays):
        heads_first = lambda x: jnp.moveaxis(x, -2, 1)
        a = {name: heads_first(x) for name, x in arrays.items() if name != "q"}
        own = Keys(a["own_k"], a["own_v"], own_at) if own_at is not None else None
        shared = Keys(a["k"], a["v"], trunk_at)
        q = arrays["q"]
        return attention(q, query_at, shared, own, window=window, implementation=name)

    out, back = jax.vjp(run, arrays)
    return out, back(cotangent)[0]


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
@pytest.mark.parametrize(("heads", "kv_heads", "own", "window"), SHAPES)
def test_forward_is_the_rule(name, heads, kv_heads, own, window):
    for seed in range(3):
        *case, cotangent = random_case(seed, heads, kv_heads, own)
        out, _ = forward_and_vjp(*case, cotangent, name, window)
        expected, seen = by_loops(*case, window)
        assert seen.any()
        assert not seen.all()  # some queries are padding and see nobody
        assert np.isfinite(out).all()
        np.testing.assert_allclose(np.asarray(out)[seen], expected[seen], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(IMPLEMENTATIONS) - {"reference"}))
@pytest.mark.parametrize(("heads", "kv_heads", "own", "window"), SHAPES)
def test_gradients_are_the_reference(name, heads, kv_heads, own, window):
    for seed in range(4):
        *case, cotangent = random_case(seed, heads, kv_heads, own)
        # What a query that sees nobody gives has no meaning, so nothing flows back from it.
        _, seen = by_loops(*case, window)
        case.append(jnp.where(jnp.asarray(seen)[..., None, None], cotangent, 0.0))
        _, expected = forward_and_vjp(*case, "reference", window)
        _, found = forward_and_vjp(*case, name, window)
        for leaf in expected:
            np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
def test_what_cannot_be_seen_has_no_gradient(name):
    arrays, query_at, trunk_at, own_at, cotangent = random_case(5, 4, 2, True)
    cotangent = jnp.where((query_at.segment > 0)[..., None, None], cotangent, 0.0)
    _, gradient = forward_and_vjp(arrays, query_at, trunk_at, own_at, cotangent, name)
    live = (query_at.segment > 0)[..., None]
    by_row = jnp.any(visible(query_at, jax.tree.map(lambda x: x[:, None], trunk_at)) & live, (1, 2))
    assert bool(by_row.any())
    assert not bool(by_row.all())
    assert np.array_equal(np.any(np.asarray(gradient["v"]) != 0, axis=(2, 3)), by_row)
    own = jnp.any(visible(query_at, own_at) & live, axis=2)
    assert not bool(own.all())
    assert np.array_equal(np.any(np.asarray(gradient["own_v"]) != 0, axis=(3, 4)), own)


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
def test_bfloat16_is_float32_rounded(name):
    # Every input, the weights and the result are rounded to 8 bits: a few times 2**-8 of the
    # largest value.
    *case, cotangent = random_case(2, 4, 2, True, jnp.bfloat16)
    out, _ = forward_and_vjp(*case, cotangent, name)
    assert out.dtype == jnp.bfloat16
    expected, seen = by_loops(*case)
    error = np.abs(np.asarray(out, np.float64) - expected)[seen]
    assert error.max() < 4 * 2**-8 * np.abs(expected).max()


def test_an_unknown_implementation_is_named():
    arrays, query_at, trunk_at, _, _ = random_case(0, 2, 2, False)
    with pytest.raises(ValueError, match="flashy.*reference.*xla"):
        attention(
            arrays["q"],
            query_at,
            Keys(arrays["k"], arrays["v"], trunk_at),
            implementation="flashy",
        )


@functools.partial(tiny.jit, static_argnames=("name", "row_scores"))
def row_and_vjp(arrays, at, cotangent, name, row_scores=None):
    """A packed row attending to itself, its keys in order; mixed values and gradients.

    `row_scores` is that of the backend's choices, which are read when this is traced.
    """

    def run(arrays):
        shared = Keys(arrays["k"], arrays["v"], at)
        one = jax.tree.map(lambda x: x[:, None], at)
        return attention(arrays["q"][:, None], one, shared, in_order=True, implementation=name)

    out, back = jax.vjp(run, arrays)
    return out, back(cotangent[:, None])[0]


# One run of queries and several, the last of them short or full; a group or many of them.
@pytest.mark.parametrize("length", [5, 128, 130, 300, 1100])
@pytest.mark.parametrize("row_scores", [2**22, 128 * 128])
def test_a_row_in_order_skips_nothing_that_it_sees(length, row_scores, monkeypatch):
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, row_scores=row_scores))
    random = np.random.default_rng(length)
    first = length // 3 + 1
    segment = np.repeat([1, 2], [first, length - first])
    segment[length - length // 8 :] = 0  # padding, where there is room
    position = np.concatenate([np.arange(first), np.arange(length - first)])
    at = Coordinates.of_trunk(*(jnp.asarray(x[None], jnp.int32) for x in (segment, position)))
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    arrays = {"q": draw(1, length, 2, 8), "k": draw(1, 1, length, 8), "v": draw(1, 1, length, 8)}
    live = jnp.asarray(segment > 0)[None, :, None, None]
    cotangent = jnp.where(live, draw(1, length, 2, 8), 0.0)
    out, gradient = row_and_vjp(arrays, at, cotangent, "xla", row_scores)
    expected, expected_gradient = row_and_vjp(arrays, at, cotangent, "reference")
    seen = lambda x: np.asarray(jnp.where(live, x[:, 0], 0.0))
    np.testing.assert_allclose(seen(out), seen(expected), rtol=1e-5, atol=1e-5)
    assert tiny.relative_error(gradient, expected_gradient) < 1e-5


def test_runs_of_queries_cover_a_row_and_little_more_than_half_its_pairs():
    for length in (1, 127, 128, 129, 1000, 4096, 4097):
        runs = query_runs(length)
        assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])]
        assert runs[-1][1] == length
        assert len(runs) <= EXTENTS
    pairs = sum((stop - start) * stop for start, stop in query_runs(4096))
    assert pairs == pytest.approx(4096**2 * (1 + 1 / EXTENTS) / 2)
