"""All attention implementations follow the rule of the mask, forward and backward."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import backend
from models.attention import IMPLEMENTATIONS, attention, choose_implementation, find_worklists
from models.attention_xla import MAX_RUNS, query_runs
from models.kernels import tpu
from models.mask import Keys, visible
from models.sharding import batch_sharding, make_mesh
from tests.support import interpreter, tiny
from tests.support.forest import anywhere, dense, forest, mask, run, run_and_vjp, small_blocks

KERNELS = ("pallas_tpu", "pallas_gpu")  # kernels for all dtypes
IN_FLOAT32 = tuple(name for name in IMPLEMENTATIONS if name != "pallas_hopper")

# Lengths that are not a multiple of a block, with several blocks of each kind. Blocks are small
# here, except in the last case, which uses the default block sizes.
ONE = {"rows": 1, "heads": 2, "kv_heads": 1}
FORESTS = {
    "documents": ONE | {"rows": 2, "trunk": 170, "documents": 3, "branches": 0},
    "trees": {"rows": 1, "trunk": 150, "branches": 5, "slots": 27},
    "near": ONE | {"trunk": 150, "branches": 5, "slots": 27, "window": 17},
    "near documents": ONE | {"trunk": 170, "documents": 3, "branches": 0, "window": 40},
    "one branch": ONE | {"trunk": 90, "documents": 1, "branches": 1, "slots": 70},
    "hundreds": ONE | {"trunk": 40, "branches": 200, "slots": 2},
    "decoding": {"rows": 1, "trunk": 150, "branches": 20, "slots": 30, "last": True},
    "multi-head": ONE | {"trunk": 70, "branches": 4, "slots": 20, "heads": 3, "kv_heads": 3},
    "multi-query": ONE | {"rows": 2, "trunk": 70, "branches": 3, "slots": 12, "heads": 5},
    "128": ONE | {"trunk": 100, "branches": 4, "slots": 30, "head_dim": 128},
    "256": ONE | {"trunk": 70, "branches": 4, "slots": 20, "head_dim": 256},
    "large": {"rows": 1, "trunk": 600, "branches": 5, "slots": 90},
}
# Kernels are interpreted, which takes seconds per case; only these cases are not marked slow.
QUICK = ("documents", "trees")
# The other cases are divided among the kernels; `test_any_shape` draws shapes for every kernel.
OF_KERNELS = {
    "pallas_tpu": {*QUICK, "near", "hundreds", "multi-head", "256", "large"},
    "pallas_gpu": {
        *QUICK,
        "near documents",
        "one branch",
        "decoding",
        "multi-query",
        "128",
    },
    "pallas_hopper": {"trees", "near", "one branch", "decoding", "multi-query", "128"},
}
# Cases in which a dtype might change more than rounding.
OF_A_DTYPE = ("trees", "decoding", "256")

# Relative to the norm of the whole array. float32 rounds to 2**-24 and sums a few hundred terms.
# bfloat16 rounds P, dS and results to 2**-9, and dS contains a difference of two rounded numbers.
TOLERANCES = {"float32": 2e-6, "bfloat16": 2**-7}


def cases(name, forests, quick=()):
    """Test cases of an implementation; those of kernels are slow, except for the quick ones."""
    slow = lambda case: [pytest.mark.slow] if name in OF_KERNELS and case not in quick else []
    return [pytest.param(name, case, marks=slow(case)) for case in forests]


def vjp_anywhere(f, name, **how):
    """Compile forward and VJP for forests of the shapes of `f`."""
    with anywhere(name, **how):
        return tiny.jit(lambda f: run_and_vjp(f, name)).lower(f).compile()


def check(f, results, tolerance):
    """Assert that output and gradients match the dense form, and that unseen keys have none."""
    expected, expected_gradient = dense(f)
    out, gradient = results
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(results))
    assert all(x.dtype == f.arrays["q"].dtype for x in jax.tree.leaves(results))
    sees = mask(f).any(-1).reshape(f.at.segment.shape)[..., None, None]
    assert tiny.relative_error(np.where(sees, out, 0), expected) < tolerance
    for leaf, x in expected_gradient.items():
        assert tiny.relative_error(gradient[leaf], x) < tolerance, leaf
    trunk = f.shared.segment.shape[1]
    shared, own = np.split(mask(f).any(1), [trunk], axis=1)
    for leaf, x in gradient.items():
        if leaf == "q":
            continue
        seen = own.reshape(f.own.segment.shape) if leaf.startswith("own") else shared
        nonzero = np.any(np.asarray(x) != 0, axis=(1, -1))
        assert not nonzero[~seen].any(), leaf
        # The gradient of a key is zero if its queries see no other key.
        assert leaf.endswith("key") or nonzero[seen].all(), leaf


def by_loops(f):
    """Attention query by query and key by key, in float64, from the rule in docs/design.md."""
    a = {name: np.asarray(x, np.float64) for name, x in f.arrays.items()}
    q, out = a["q"], np.zeros(a["q"].shape)
    window = f.window or 1000
    at = lambda c, *i: [int(x[i]) for x in (c.segment, c.branch, c.position, c.fork)]
    repeat = q.shape[3] // a["key"].shape[1]
    for b, n, i in np.ndindex(*q.shape[:3]):
        segment, branch, position, fork = at(f.at, b, n, i)
        keys = [
            (at(f.shared, b, j), a["key"][b, :, j], a["value"][b, :, j])
            for j in range(a["key"].shape[2])
        ]
        if f.own is not None:
            keys += [
                (at(f.own, b, m, j), a["own_key"][b, :, m, j], a["own_value"][b, :, m, j])
                for m, j in np.ndindex(*a["own_key"].shape[2:4])
            ]
        keys = [
            (k, v)
            for (k_segment, k_branch, k_position, _), k, v in keys
            if k_segment == segment > 0
            and position - window < k_position <= position
            and (k_branch == branch or (k_branch == 0 and k_position < fork))
        ]
        for h in range(q.shape[3] if keys else 0):
            head = h // repeat
            scores = np.array([k[head] @ q[b, n, i, h] for k, _ in keys]) / q.shape[-1] ** 0.5
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out[b, n, i, h] = sum(w * v[head] for w, (_, v) in zip(weights, keys, strict=True))
    return out


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("branches", [0, 4])
def test_the_dense_form_is_the_rule(branches, window):
    f = forest(3, trunk=13, branches=branches, slots=5, head_dim=8, window=window)
    np.testing.assert_allclose(dense(f)[0], by_loops(f), rtol=1e-12, atol=1e-12)
    seen = mask(f)
    assert not seen.any(-1).all()  # some queries are padding and see no key
    assert seen.any()
    at, keys = (jax.tree.map(lambda x: x.reshape(2, -1), c) for c in (f.at, f.shared))
    assert np.array_equal(visible(at, keys, window), seen[:, :, :13])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        case
        for name in IN_FLOAT32
        for case in cases(name, [x for x in FORESTS if x in OF_KERNELS.get(name, FORESTS)], QUICK)
    ],
)
def test_values_and_gradients_are_those_of_the_dense_form(name, case):
    f = forest(7, **FORESTS[case])
    check(f, vjp_anywhere(f, name, small=case != "large")(f), TOLERANCES["float32"])


# Kernels in which the dtype changes only rounding have one case.
@pytest.mark.parametrize(
    ("name", "case"),
    [
        *cases("xla", OF_A_DTYPE),
        *(case for name in KERNELS for case in cases(name, ["decoding"], ["decoding"])),
        *cases("pallas_hopper", sorted(OF_KERNELS["pallas_hopper"])),
    ],
)
def test_bfloat16_is_rounded_and_no_more(name, case):
    f = forest(8, dtype=jnp.bfloat16, **FORESTS[case])
    check(f, vjp_anywhere(f, name)(f), TOLERANCES["bfloat16"])


@pytest.mark.parametrize("name", KERNELS)
def test_two_runs_have_the_same_bits(name):
    f = forest(6, rows=1, trunk=70, branches=6, slots=20)
    program = vjp_anywhere(f, name)
    first, second = (jax.tree.leaves(program(f)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_the_cores_of_a_tpu_do_not_race():
    f = forest(9, rows=1, trunk=150, branches=5, slots=27)
    with interpreter.races() as kernels:
        jax.block_until_ready(vjp_anywhere(f, "pallas_tpu", races=True)(f))
    assert len(kernels) == 4  # forward, dq, dkv of the trunk, dkv of the branches
    assert all(kernel.writes and not kernel.races_found for kernel in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_any_shape(name):
    @settings(max_examples=4, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 2**16),
        rows=st.integers(1, 2),
        trunk=st.integers(4, 150),
        documents=st.integers(1, 4),
        branches=st.integers(0, 6),
        slots=st.integers(1, 30),
        last=st.booleans(),
        shape=st.sampled_from([(1, 1, 64), (4, 2, 64), (6, 1, 64), (2, 2, 128)]),
        window=st.none() | st.integers(1, 100),
    )
    def check_shape(seed, shape, **sizes):
        heads, kv_heads, head_dim = shape
        draw = lambda n: forest(
            seed + n, heads=heads, kv_heads=kv_heads, head_dim=head_dim, **sizes
        )
        program = vjp_anywhere(draw(0), name)
        for f in map(draw, range(2)):  # trees of the same shape
            out, gradient = dense(f)
            expected = {"out": out, **gradient}
            out, gradient = program(f)
            seen = mask(f).any(-1).reshape(f.at.segment.shape)[..., None, None]
            results = {"out": np.where(seen, out, 0), **gradient}
            for leaf, x in expected.items():
                np.testing.assert_allclose(results[leaf], x, rtol=0, atol=1e-5 * (1 + abs(x).max()))

    check_shape()


def worklists_for(f, name):
    sizes = f.arrays["q"].shape[3], f.arrays["key"].shape[1], f.arrays["q"].shape[4]
    dtype = f.arrays["q"].dtype
    return find_worklists(
        f.at, f.shared, f.own, *sizes, dtype, window=f.window, implementation=name
    )


@pytest.mark.parametrize("name", KERNELS)
def test_worklists_serve_many_layers(name):
    f = forest(2, **ONE, trunk=90, branches=3, slots=20)
    with anywhere(name):
        worklists = tiny.jit(lambda f: worklists_for(f, name))(f)
        reused = tiny.jit(lambda f, lists: run(f.arrays, f, name, worklists=lists))(f, worklists)
        fresh = tiny.jit(lambda f: run(f.arrays, f, name))(f)
    assert np.array_equal(reused, fresh)


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_mesh_each_device_has_its_documents_and_heads(name):
    f = forest(4, rows=4, trunk=40, branches=3, slots=16)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    both = lambda f: run_and_vjp(f, name)
    with small_blocks(), backend.interpreting():
        one_device = tiny.jit(both)(f)
        with jax.set_mesh(mesh):
            placed = jax.device_put(f, batch_sharding(mesh))
            program = tiny.jit(lambda f: both(f)).lower(placed).compile()
    sharded = program(placed)
    assert "all-gather" not in program.as_text()
    assert tiny.relative_error(sharded, one_device) < TOLERANCES["float32"]
    assert sharded[0].sharding.spec[0] == ("data", "fsdp")


@pytest.mark.parametrize("name", ["reference", "xla", *KERNELS])
def test_caches_of_all_layers_are_read_where_they_are(name):
    f = forest(2, trunk=70, branches=3, slots=12)
    stacked = {
        leaf: jnp.stack([jnp.full_like(x, jnp.nan), x])
        for leaf, x in f.arrays.items()
        if leaf != "q"
    }
    keys = lambda arrays, layer=None: (
        Keys(arrays["key"], arrays["value"], f.shared, layer),
        Keys(arrays["own_key"], arrays["own_value"], f.own, layer),
    )
    run = lambda keys: attention(f.arrays["q"], f.at, *keys, implementation=name)
    with anywhere(name):
        expected = tiny.jit(run)(keys(f.arrays))
        out = tiny.jit(lambda keys: run(keys))(keys(stacked, jnp.int32(1)))
    assert np.array_equal(out, expected)


def test_worklists_too_large_for_the_scalar_memory_of_a_tpu_are_split(monkeypatch):
    f = forest(2, rows=4, trunk=90, branches=4, slots=20)
    both = lambda f: run_and_vjp(f, "pallas_tpu")
    with backend.interpreting():
        whole = tiny.jit(both)(f)
        monkeypatch.setattr(tpu, "SCALARS", 24)  # the steps of two rows, four scalars each
        parts = jax.tree.leaves(jax.eval_shape(lambda f: worklists_for(f, "pallas_tpu"), f))
        assert {len(x) for x in parts} == {2}
        in_parts = tiny.jit(lambda f: both(f))(f)
        monkeypatch.setattr(tpu, "SCALARS", 11)
        with pytest.raises(ValueError, match="a row of 160 queries and 170 keys has too many"):
            jax.eval_shape(lambda f: both(f), f)
    assert tiny.relative_error(in_parts, whole) < TOLERANCES["float32"]


@pytest.mark.parametrize("name", KERNELS)
def test_caches_of_all_layers_have_no_gradient(name):
    f = forest(2, trunk=90, branches=0)
    run = lambda key: attention(
        f.arrays["q"], f.at, Keys(key, key, f.shared, jnp.int32(0)), implementation=name
    )
    with backend.interpreting(), pytest.raises(ValueError, match="cache of all layers has no"):
        jax.eval_shape(jax.grad(lambda x: run(x).sum()), jnp.stack([f.arrays["key"]] * 2))


def test_an_unknown_implementation_is_named():
    f = forest(0, branches=0)
    with pytest.raises(ValueError, match="flashy.*reference.*xla"):
        run(f.arrays, f, "flashy")


def test_a_kernel_that_cannot_serve_says_why(monkeypatch):
    f = forest(0, branches=0)
    with pytest.raises(ValueError, match="'pallas_tpu' is not available: it needs a TPU, and"):
        run(f.arrays, f, "pallas_tpu")
    with backend.compiling_for("cuda"):
        with pytest.raises(ValueError, match="head sizes 64, 128, 256, not 80"):
            choose_implementation("pallas_gpu", 80, jnp.bfloat16)
        with pytest.raises(ValueError, match="it computes in bfloat16 .*, not float32; leave it"):
            choose_implementation("pallas_hopper", 128, jnp.float32)
        assert choose_implementation(None, 80, jnp.bfloat16) == "xla"
        assert choose_implementation(None, 128, jnp.bfloat16) == "pallas_gpu"
        assert choose_implementation("pallas_hopper", 128, jnp.bfloat16) == "pallas_hopper"
        monkeypatch.setattr(backend, "H200", backend.GPU((8, 0), 108))
        with pytest.raises(ValueError, match="it needs an H100 or H200"):
            choose_implementation("pallas_hopper", 128, jnp.bfloat16)
        monkeypatch.setattr(backend, "H200", backend.GPU((7, 5), 72))
        with pytest.raises(ValueError, match="needs an NVIDIA GPU of the Ampere generation"):
            choose_implementation("pallas_gpu", 128, jnp.bfloat16)
        assert choose_implementation(None, 128, jnp.bfloat16) == "xla"
    with backend.compiling_for("tpu"):
        assert choose_implementation(None, 64, jnp.float32) == "pallas_tpu"
    assert choose_implementation(None, 64, jnp.float32) == "xla"


@pytest.mark.parametrize(
    ("compute_capability", "capability", "best"),
    [("9.0", (9, 0), "pallas_gpu"), ("7.0", (7, 0), "xla"), ("gfx942", (0, 0), "xla")],
)
def test_a_gpu_that_no_kernel_supports_uses_xla(compute_capability, capability, best, monkeypatch):
    device = types.SimpleNamespace(compute_capability=compute_capability, core_count=100)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert backend.gpu() == backend.GPU(capability, 100)
    assert choose_implementation(None, 128, jnp.bfloat16) == best


# One run of queries or several, the last one short or full; one group of them or many.
@pytest.mark.parametrize("length", [5, 128, 130, 300, 1100])
@pytest.mark.parametrize("row_scores", [2**22, 128 * 128])
def test_a_row_in_order_skips_nothing_that_it_sees(length, row_scores, monkeypatch):
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, row_scores=row_scores))
    f = forest(length, rows=1, trunk=length, heads=2, kv_heads=1, head_dim=8, branches=0)
    check(f, vjp_anywhere(f, "xla")(f), TOLERANCES["float32"])


def test_runs_of_queries_cover_a_row_and_little_more_than_half_its_pairs():
    for length in (1, 127, 128, 129, 1000, 4096, 4097):
        runs = query_runs(length)
        assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])]
        assert runs[-1][1] == length
        assert len(runs) <= MAX_RUNS
    pairs = sum((stop - start) * stop for start, stop in query_runs(4096))
    assert pairs == pytest.approx(4096**2 * (1 + 1 / MAX_RUNS) / 2)
