"""A branch computed with its trunk equals the same text computed as a plain row: forward, backward
and cached (see `tests/support/trees.py`)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.rope import Rope
from models.transformer import bind
from models.tree import Trunk, forward, prefill
from tests.support import tiny
from tests.support.trees import (
    CONFIG,
    B,
    N,
    T,
    W,
    alone,
    assert_one_pass_is_a_pass_each,
    cached,
    packed,
    packed_gradient,
    plain,
    plain_gradient,
    random_cotangent,
    random_tree,
    run_tree,
    weighted,
)  # fmt: skip

# All features of model families, with unrolled and scanned layers. A window of 4 tokens starts in
# the trunk for some queries, and in the branch for others.
FAMILY = tiny.model_config(
    vocab_size=40,
    num_layers=3,
    activation="gelu_tanh",
    norm="around",
    zero_centered_norm=True,
    qkv_bias=True,
    query_pre_attn_scalar=5.0,
    sliding_window=4,
    layer_pattern="LLG",
    rope=Rope(100.0, local_theta=10.0, scaling="yarn", factor=4.0, original_length=16),
    scale_embedding=True,
)
CONFIGS = {
    "plain": CONFIG,
    "family": FAMILY,
    "scanned": dataclasses.replace(FAMILY, num_layers=9, norm="after", qk_norm="all_heads"),
    "local": tiny.model_config(vocab_size=40, num_layers=9, sliding_window=4, layer_pattern="L"),
    "kernels": dataclasses.replace(FAMILY, head_dim=64, attention="pallas_tpu"),
}


def weights(name: str):
    """Parameters for one of `CONFIGS`, smaller if more layers would amplify rounding."""
    return tiny.params(CONFIGS[name], scale=10.0 if name == "plain" else 5.0)


@pytest.fixture(autouse=True)
def kernels_are_interpreted_in_a_scan(request, monkeypatch):
    if "kernels" in request.node.name:
        scanned = dataclasses.replace(backend.CPU, unrolled_layers=0, cache_slots=16)
        monkeypatch.setattr(backend, "CPU", scanned)
    with backend.interpreting():
        yield


@pytest.mark.parametrize(
    ("name", "seed"), [("plain", n) for n in range(6)] + [(n, 7) for n in sorted(CONFIGS)]
)
def test_branches_with_their_trunk_are_plain_rows(name, seed):
    config, params = CONFIGS[name], weights(name)
    trunk, branches = random_tree(seed)
    rows, live = alone(trunk, branches), np.asarray(branches.live)
    without_kernels = dataclasses.replace(config, attention=None)
    expected = np.asarray(plain(params, *rows, config=without_kernels))[live]
    hidden = np.asarray(packed(params, trunk, branches, config=config))
    assert np.isfinite(hidden).all()
    np.testing.assert_allclose(hidden[live], expected, rtol=1e-5, atol=1e-5)
    cotangent = random_cotangent(seed)
    error = tiny.relative_error(
        packed_gradient(params, trunk, branches, cotangent, config=config),
        plain_gradient(params, rows, branches.live, cotangent, config=without_kernels),
    )
    assert error < 1e-5


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("plain", (1, 1, 1, 1, 1)), ("plain", (2, 3)), ("plain", (5,))]
    + [(name, (2, 3)) for name in sorted(set(CONFIGS) - {"plain"})],
)
def test_cached_slots_equal_teacher_forcing(name, sizes):
    config, params = CONFIGS[name], weights(name)
    for seed in range(3):
        trunk, branches = random_tree(seed)
        live = np.asarray(branches.live)
        hidden = np.asarray(cached(params, trunk, branches, sizes=sizes, config=config))
        expected = np.asarray(packed(params, trunk, branches, config=config))
        np.testing.assert_allclose(hidden[live], expected[live], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["family", "kernels", "scanned"])
def test_one_pass_over_rows_and_branches_is_a_pass_each(name):
    assert_one_pass_is_a_pass_each(CONFIGS[name], weights(name))


def test_prefill_is_forward():
    trunk, _ = random_tree(0)
    model = bind(CONFIG, tiny.params(CONFIG))
    hidden, cache = tiny.jit(prefill)(model, trunk)
    assert np.array_equal(hidden, tiny.jit(forward)(model, trunk))
    layers = [layer.key.shape for layer in cache.kinds["attention"]]
    assert layers == [(B, CONFIG.num_kv_heads, T, CONFIG.head_dim)] * CONFIG.num_layers


def test_documents_of_a_row_do_not_see_each_other():
    # Packed documents have the hidden states of documents in separate rows.
    model = bind(CONFIG, tiny.params(CONFIG))
    run = tiny.jit(forward)
    trunk, _ = random_tree(1)
    together = np.asarray(run(model, trunk))
    for document in (1, 2, 3):
        for row in range(B):
            inside = np.asarray(trunk.segment)[row] == document
            tokens = np.zeros((B, T), np.int32)
            tokens[0, : inside.sum()] = np.asarray(trunk.tokens)[row, inside]
            segment = (np.arange(T) < inside.sum()).astype(np.int32) * np.ones((B, 1), np.int32)
            position = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
            single = np.asarray(run(model, Trunk(tokens, segment, position)))[0, : inside.sum()]
            np.testing.assert_allclose(single, together[row, inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"remat": "block"}, {"remat": "dots"}, {"attention": "reference"}]
)
def test_remat_and_implementation_do_not_change_the_gradient(changes):
    config = tiny.model_config(vocab_size=40, **changes)
    params = tiny.params(CONFIG)
    trunk, branches = random_tree(3)
    cotangent = random_cotangent(3)
    error = tiny.relative_error(
        packed_gradient(params, trunk, branches, cotangent, config=config),
        packed_gradient(params, trunk, branches, cotangent),
    )
    assert error < 1e-5


@pytest.mark.parametrize("policy", ["block", "dots"])
def test_rematerialization_saves_fewer_residuals(policy):
    def residuals(config):
        trunk, branches = random_tree(3)
        loss = lambda p: run_tree(bind(config, p), trunk, branches).sum()
        _, vjp = jax.eval_shape(functools.partial(jax.vjp, loss), tiny.params(CONFIG))
        return sum(x.size for x in jax.tree.leaves(vjp))

    saved = residuals(tiny.model_config(vocab_size=40, remat=policy))
    assert saved < 0.7 * residuals(CONFIG)


def test_only_what_a_branch_may_see_has_a_gradient():
    """Zero for trunk tokens at or after the fork, other documents and branches, and dead slots.

    Every token of the row has a unique id, so the gradient of the embedding shows which were read.
    """
    count = B * (T + N * W)
    config = tiny.model_config(vocab_size=count)
    trunk, branches = random_tree(4)
    ids = jnp.arange(count, dtype=jnp.int32)
    trunk = trunk.replace(tokens=ids[: B * T].reshape(B, T))
    branches = branches.replace(tokens=ids[B * T :].reshape(B, N, W))
    cotangent = random_cotangent(0)
    params = tiny.params(config)

    def reads(one_slot):
        loss = lambda p: weighted(run_tree(bind(config, p), trunk, branches), cotangent, one_slot)
        return jnp.any(jax.grad(loss)(params)["embedding"] != 0, axis=-1)

    slots = [(b, n, w) for b, n, w in np.ndindex(B, N, W) if branches.live[b, n, w]]
    masks = np.zeros((len(slots), B, N, W), bool)
    for i, slot in enumerate(slots):
        masks[(i, *slot)] = True
    read = np.asarray(tiny.jit(lambda m: jax.lax.map(reads, m))(jnp.asarray(masks)))

    t, b_ = jax.tree.map(np.asarray, (trunk, branches))
    for (b, n, w), tokens_read in zip(slots, read, strict=True):
        expected = np.zeros(count, bool)
        seen = (t.segment[b] == b_.segment[b, n]) & (t.position[b] < b_.fork[b, n])
        expected[t.tokens[b, seen]] = True
        expected[b_.tokens[b, n, : w + 1][b_.live[b, n, : w + 1]]] = True
        assert np.array_equal(tokens_read, expected)


ROUGH = tiny.model_config(vocab_size=40, compute_dtype="bfloat16")


def distance(a, b) -> float:
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return np.sqrt(sum(float(jnp.sum((x - y).astype(jnp.float32) ** 2)) for x, y in pairs))


# Packing only reorders sums: its error against float32 may be at most twice that of plain bfloat16
# rows, since two roundings of the same size differ by up to that factor.
def assert_packing_loses_nothing(exact, as_plain, as_packed):
    error = distance(as_plain, exact)
    assert 0 < error < 0.1 * distance(exact, jax.tree.map(jnp.zeros_like, exact))
    assert distance(as_packed, exact) < 2 * error


def test_bfloat16_packs_as_well_as_it_runs_plain():
    params = tiny.params(CONFIG)
    trunk, branches = random_tree(5)
    rows, live = alone(trunk, branches), branches.live[..., None]
    keep = lambda x: jnp.where(live, x.astype(jnp.float32), 0)
    assert_packing_loses_nothing(
        keep(plain(params, *rows)),
        keep(plain(params, *rows, config=ROUGH)),
        keep(packed(params, trunk, branches, config=ROUGH)),
    )


@pytest.mark.slow  # compiles bfloat16 backward passes for a CPU
def test_bfloat16_gradient_packs_as_well_as_it_runs_plain():
    params = tiny.params(CONFIG)
    trunk, branches = random_tree(5)
    rows, cotangent = alone(trunk, branches), random_cotangent(5)
    assert_packing_loses_nothing(
        plain_gradient(params, rows, branches.live, cotangent),
        plain_gradient(params, rows, branches.live, cotangent, config=ROUGH),
        packed_gradient(params, trunk, branches, cotangent, config=ROUGH),
    )
