"""The recurrences in chunks, with documents in rows and branches that leave them, are those that
read every text alone, token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.convolution import convolve, convolve_live, windows_at
from models.recurrence import Places, Tokens, delta_tokens, mamba_tokens, recur, step
from tests.support import tiny

B, T, K, G, W = 2, 24, 5, 2, 9  # G branches leave each of K places
HEADS, WIDTH, GROUPS, STATE, TAPS = 4, 3, 2, 5, 4
INNER, SHARED = HEADS * WIDTH, GROUPS * STATE

# Row 0 has documents of 13 and 7 tokens and padding, row 1 has one of all 24. With chunks of 8,
# places are at the beginning of documents and chunks, inside of a chunk, in a chunk of two
# documents, and at the end of a row.
SEGMENT = np.array([[1] * 13 + [2] * 7 + [0] * 4, [1] * 24], np.int32)
PLACE = np.array([[0, 8, 11, 13, 15], [1, 3, 16, 21, 24]], np.int32)
OF = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 1, 1]], np.int32)
FIRST = {(0, 1): 0, (0, 2): 13, (1, 1): 0}
# The slots of a branch: dead ones at the beginning, in the middle, at the end, or everywhere.
LIVE = np.random.default_rng(0).random((B, K * G, W)) < 0.6
LIVE[0, 0], LIVE[0, 1], LIVE[1, 0, :2], LIVE[1, 1, -3:] = True, False, False, False

every_recurrence = pytest.mark.parametrize("kind", ["mamba", "delta"])


def drawn(kind, dtype):
    """Draw weights, and the inputs of rows [B, 1, T, …] and of branches [B, N, W, …]."""
    random = np.random.default_rng(1)
    draw = lambda *shape: random.normal(size=shape).astype(dtype)
    channels = INNER + 2 * SHARED
    gates, bias = {
        "mamba": (("dt",), {"bias": draw(channels)}),
        "delta": (("dt", "strength"), {}),
    }[kind]
    weights = {"taps": draw(TAPS, channels), "rate": -np.exp(draw(HEADS)), **bias}

    def inputs(*shape):
        return {"xbc": draw(*shape, channels)} | {gate: draw(*shape, HEADS) for gate in gates}

    return weights, inputs(B, 1, T), inputs(B, K * G, W)


def split(xbc):
    """Return x [..., H, P], b and c [..., G, S] of mixed channels."""
    x, b, c = jnp.split(jax.nn.silu(xbc), [INNER, INNER + SHARED], axis=-1)
    shape = xbc.shape[:-1]
    shared = lambda y: y.reshape(*shape, GROUPS, STATE)
    return x.reshape(*shape, HEADS, WIDTH), shared(b), shared(c)


def tokens_of(weights, mixed, inputs, live) -> Tokens:
    """Return what tokens with these mixed channels and gates do; nothing where they are dead."""
    where_live = lambda y: jnp.where(live[..., None], y, 0)
    x, b, c = split(mixed)
    dt, rate = where_live(jax.nn.softplus(inputs["dt"])), weights["rate"]
    if "strength" not in inputs:
        return mamba_tokens(x, dt, rate, b, c)
    strength = where_live(jax.nn.sigmoid(inputs["strength"]))
    return delta_tokens(x, b, c, dt * rate.reshape((1,) * (dt.ndim - 1) + (-1,)), strength)


def rows(weights, inputs, chunk):
    """Return the outputs of rows, and the states and windows at the places."""
    segment, places = jnp.asarray(SEGMENT[:, None]), Places(PLACE[:, None], OF[:, None])
    mixed = convolve(inputs["xbc"], weights["taps"], weights.get("bias"), segment)
    tokens = tokens_of(weights, mixed, inputs, jnp.ones(segment.shape, bool))
    y, state = recur(tokens, segment, chunk=chunk, places=places)
    return y, (state[:, :, 0], windows_at(inputs["xbc"], segment, places, TAPS - 1)[:, 0])


def slots(weights, inputs, live, cache, chunk):
    """Return the outputs of slots on the states and windows before them, and those after them."""
    (state, window), taps = cache, (weights["taps"], weights.get("bias"))
    mixed, window = convolve_live(inputs["xbc"], *taps, live, window)
    tokens = tokens_of(weights, mixed, inputs, live)
    if chunk:
        y, state = recur(tokens, jnp.ones_like(live, jnp.int32), chunk=chunk, start=state)
    else:
        y, state = step(jax.tree.map(lambda z: z[:, :, 0], tokens), state)
        y = y[:, :, None]
    return y, (state, window)


def begun(cache):
    """Return the states [B, H, N, S, P] and windows [B, N, …] with which branches begin."""
    state, window = cache
    return jnp.repeat(state, G, axis=2), jnp.repeat(window, G, axis=1)


def packed(weights, of_rows, of_branches, chunk):
    y, cache = rows(weights, of_rows, chunk)
    z, _ = slots(weights, of_branches, jnp.asarray(LIVE), begun(cache), chunk)
    return y[:, 0], z


def texts():
    """Return the texts as rows of indices of tokens, -1 for padding, and where outputs belong."""
    place, lines = np.arange(B * (T + K * G * W)), []
    of_rows, of_branches = place[: B * T].reshape(B, T), place[B * T :].reshape(B, K * G, W)
    for row, document in FIRST:
        lines.append(of_rows[row][SEGMENT[row] == document])
    for row, n in np.ndindex(B, K * G):
        start = FIRST[row, OF[row, n // G]]
        prefix = of_rows[row, start : PLACE[row, n // G]]
        lines.append(np.concatenate([prefix, of_branches[row, n][LIVE[row, n]]]))
    padded = np.full((len(lines), max(map(len, lines))), -1)
    for i, line in enumerate(lines):
        padded[i, : len(line)] = line
    return padded


def token_by_token(weights, of_rows, of_branches):
    """Run every text alone, and return the outputs [B, T, …] of rows and [B, N, W, …] of branches;
    0 for padding and dead slots."""
    index = texts()
    join = lambda x, y: jnp.concatenate([z.reshape(-1, z.shape[-1]) for z in (x, y)])
    inputs = jax.tree.map(lambda x: x[index], jax.tree.map(join, of_rows, of_branches))

    def token(carry, part):
        state, window = carry
        window = jnp.concatenate([window[1:], part["xbc"][None]])
        mixed = sum(tap * x for tap, x in zip(weights["taps"], window, strict=True))
        x, b, c = split(mixed + weights.get("bias", 0))
        b, c = (jnp.repeat(y, HEADS // GROUPS, axis=0) for y in (b, c))
        dt = jax.nn.softplus(part["dt"])
        state = jnp.exp(dt * weights["rate"])[:, None, None] * state
        if "strength" in part:
            b, c = (y / jnp.sqrt((y * y).sum(axis=-1, keepdims=True) + 1e-6) for y in (b, c))
            held = (state * b[:, None, :]).sum(axis=-1)
            added = jax.nn.sigmoid(part["strength"])[:, None] * (x - held)
            c = c / STATE**0.5
        else:
            added = dt[:, None] * x
        state = state + added[:, :, None] * b[:, None, :]
        return (state, window), (state * c[:, None, :]).sum(axis=-1)

    dtype = weights["rate"].dtype
    begin = (
        jnp.zeros((HEADS, WIDTH, STATE), dtype),
        jnp.zeros((TAPS, INNER + 2 * SHARED), dtype),
    )
    outputs = jax.vmap(lambda part: jax.lax.scan(token, begin, part)[1])(inputs)
    flat = jnp.zeros((B * (T + K * G * W), HEADS, WIDTH), dtype)
    # The prefix of a branch is computed again; only its slots are outputs.
    own = (index >= 0) & ((index >= B * T) | (np.arange(len(index)) < len(FIRST))[:, None])
    flat = flat.at[index[own]].set(outputs[own])
    return flat[: B * T].reshape(B, T, HEADS, WIDTH), flat[B * T :].reshape(B, K * G, W, HEADS, -1)


def masked(y, z):
    """Set the outputs of padding and of dead slots to 0."""
    return jnp.where(SEGMENT[..., None, None] > 0, y, 0), jnp.where(LIVE[..., None, None], z, 0)


@functools.cache
def expected(kind, dtype):
    """Return the outputs of single texts, and the gradient."""
    return value_and_gradient(token_by_token, kind, dtype)


def value_and_gradient(run, kind, dtype, of_loss=None):
    """Return the outputs, and the gradient of a random sum of those that count, all by default."""

    @tiny.jit
    def both(*inputs):
        random = np.random.default_rng(2)
        outputs, back = jax.vjp(lambda *x: masked(*run(*x)), *inputs)
        slopes = [random.normal(size=y.shape).astype(dtype) for y in outputs]
        if of_loss is not None:
            slopes = [
                np.where(m[..., None, None], y, 0) for m, y in zip(of_loss, slopes, strict=True)
            ]
        return outputs, back(tuple(slopes))

    with jax.enable_x64(dtype == np.float64):
        return jax.tree.map(np.asarray, both(*drawn(kind, dtype)))


@every_recurrence
@pytest.mark.parametrize(
    ("dtype", "chunk", "limit"),
    [
        *((np.float64, chunk, 1e-12) for chunk in (1, 5, 8, 64)),
        (np.float32, 8, 1e-5),
    ],
)
def test_in_chunks_it_is_the_recurrence_of_single_texts(kind, dtype, chunk, limit):
    """Outputs, and gradients of weights and of all inputs, which pass through the states."""
    found = value_and_gradient(functools.partial(packed, chunk=chunk), kind, dtype)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected(kind, dtype)), strict=True):
        assert np.abs(x - y).max() < limit * np.abs(y).max()


@every_recurrence
def test_no_gradient_leaks(kind):
    """The gradient of a document and of its branches in another, and in dead slots, is zero."""
    of_second = SEGMENT == 2, LIVE & np.repeat(OF == 2, G, axis=1)[..., None]
    run = functools.partial(packed, chunk=8)
    _, (_, of_rows, of_branches) = value_and_gradient(run, kind, np.float32, of_second)
    for slope in of_rows.values():
        assert np.array_equal(np.any(slope[:, 0] != 0, axis=-1), of_second[0])
    for slope in of_branches.values():
        assert np.array_equal(np.any(slope != 0, axis=-1), of_second[1])


@every_recurrence
@pytest.mark.parametrize("sizes", [(1,) * W, (4, 5), (2, 1, 6)])
def test_some_slots_at_a_time_are_all_at_once(kind, sizes):
    """Decoding one slot after the other, and evidence on the state that it left."""
    weights, of_rows, of_branches = drawn(kind, np.float32)
    run = tiny.jit(slots, static_argnames="chunk")
    cache = whole = begun(tiny.jit(rows, static_argnums=2)(weights, of_rows, 8)[1])
    live, parts, start = jnp.asarray(LIVE), [], 0
    for size in sizes:
        cut = lambda x, start=start, size=size: x[:, :, start : start + size]
        chunk = None if size == 1 else 8
        y, cache = run(weights, jax.tree.map(cut, of_branches), cut(live), cache, chunk=chunk)
        parts.append(y)
        start += size
    y, after = run(weights, of_branches, live, whole, chunk=8)
    for found, wanted in (
        (np.concatenate(parts, axis=2)[LIVE], np.asarray(y)[LIVE]),
        *zip(cache, after, strict=True),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@every_recurrence
def test_a_dead_slot_leaves_no_trace(kind):
    """Whatever is in it, states and windows after it keep their bits."""
    weights, of_rows, of_branches = drawn(kind, np.float32)
    cache = begun(tiny.jit(rows, static_argnums=2)(weights, of_rows, 8)[1])
    other = jax.tree.map(lambda x: np.where(LIVE[..., None], x, 7), of_branches)
    for size, chunk in ((W, 4), (1, None)):
        cut = lambda x, size=size: x[:, :, -size:]
        run = tiny.jit(slots, static_argnames="chunk")
        after = [
            run(weights, jax.tree.map(cut, inputs), cut(jnp.asarray(LIVE)), cache, chunk=chunk)[1]
            for inputs in (of_branches, other)
        ]
        jax.tree.map(np.testing.assert_array_equal, *after)
