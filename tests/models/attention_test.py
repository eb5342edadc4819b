"""Every attention implementation is the rule of the mask, forward and backward."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import backend
from models.attention import IMPLEMENTATIONS, attention, chosen, find_worklists
from models.attention_xla import EXTENTS, query_runs
from models.kernels import tpu
from models.mask import Keys, visible
from models.sharding import batch_sharding, make_mesh
from tests.support import interpreter, tiny
from tests.support.forest import anywhere, dense, forest, mask, run, run_and_vjp, small_blocks

KERNELS = ("pallas_tpu", "pallas_gpu")  # that serve every dtype and head
IN_FLOAT32 = tuple(name for name in IMPLEMENTATIONS if name != "pallas_hopper")

# Lengths that are no multiple of a block, and several blocks of each kind, which are small here; in
# the last one they have the product's sizes.
ONE = {"rows": 1, "heads": 2, "kv_heads": 1}
FORESTS = {
    "documents": ONE | {"rows": 2, "trunk": 170, "documents": 3, "branches": 0},
    "trees": {"rows": 1, "trunk": 150, "branches": 5, "slots": 27},
    "near": ONE | {"trunk": 150, "branches": 5, "slots": 27, "window": 17},
    "near documents": ONE | {"trunk": 170, "documents": 3, "branches": 0, "window": 40},
    "one branch": ONE | {"trunk": 90, "documents": 1, "branches": 1, "slots": 70},
    "hundreds": ONE | {"trunk": 40, "branches": 200, "slots": 2},
    "decoding": {"rows": 1, "trunk": 150, "branches": 20, "slots": 30, "last": True},
    "every head its keys": ONE
    | {"trunk": 70, "branches": 4, "slots": 20, "heads": 3, "kv_heads": 3},
    "five heads a key": ONE | {"rows": 2, "trunk": 70, "branches": 3, "slots": 12, "heads": 5},
    "128": ONE | {"trunk": 100, "branches": 4, "slots": 30, "head_dim": 128},
    "256": ONE | {"trunk": 70, "branches": 4, "slots": 20, "head_dim": 256},
    "large": {"rows": 1, "trunk": 600, "branches": 5, "slots": 90},
}
# Kernels are interpreted, which takes seconds a case: these are not slow.
QUICK = ("documents", "trees")
# So the others take turns, each with some kernel; `test_any_shape` draws for every kernel.
OF_KERNELS = {
    "pallas_tpu": {*QUICK, "near", "hundreds", "every head its keys", "256", "large"},
    "pallas_gpu": {*QUICK, "near documents", "one branch", "decoding", "five heads a key", "128"},
    "pallas_hopper": {"trees", "near", "one branch", "decoding", "five heads a key", "128"},
}
# What a dtype might change beyond rounding.
OF_A_DTYPE = ("trees", "decoding", "256")

# Relative to the size of the whole array. float32 rounds to 2**-24 and sums a few hundred terms.
# bfloat16 rounds weights, slopes and results to 2**-9; delta is a difference of two such.
TOLERANCES = {"float32": 2e-6, "bfloat16": 2**-7}


def cases(name, forests, quick=()):
    """An implementation with forests; of kernels, all but the quick ones are slow."""
    slow = lambda case: [pytest.mark.slow] if name in OF_KERNELS and case not in quick else []
    return [pytest.param(name, case, marks=slow(case)) for case in forests]


def vjp_anywhere(f, name, **how):
    """A program for forests of these shapes."""
    with anywhere(name, **how):
        return tiny.jit(lambda f: run_and_vjp(f, name)).lower(f).compile()


def check(f, found, tolerance):
    """Results and gradients are those of the dense form; what nobody sees has no gradient."""
    expected, slopes = dense(f)
    out, gradient = found
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert all(x.dtype == f.arrays["q"].dtype for x in jax.tree.leaves(found))
    sees = mask(f).any(-1).reshape(f.at.segment.shape)[..., None, None]
    assert tiny.relative_error(np.where(sees, out, 0), expected) < tolerance
    for leaf, slope in slopes.items():
        assert tiny.relative_error(gradient[leaf], slope) < tolerance, leaf
    trunk = f.shared.segment.shape[1]
    shared, own = np.split(mask(f).any(1), [trunk], axis=1)
    for leaf, slope in gradient.items():
        if leaf == "q":
            continue
        seen = own.reshape(f.own.segment.shape) if leaf.startswith("own") else shared
        some = np.any(np.asarray(slope) != 0, axis=(1, -1))
        assert not some[~seen].any(), leaf
        assert leaf.endswith("key") or some[seen].all(), leaf  # a key seen alone has none


def by_loops(f):
    """Attention query by query and key by key, in float64, from the rule as the design words it."""
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
    assert not seen.any(-1).all()  # some queries are padding and see nobody
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


# Kernels whose dtype changes nothing else are tried once.
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
    with interpreter.races() as found:
        jax.block_until_ready(vjp_anywhere(f, "pallas_tpu", races=True)(f))
    assert len(found) == 4  # forward, dq, dk and dv of the trunk, of the branches
    assert all(kernel.writes and not kernel.races_found for kernel in found)


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
            expected, slopes = dense(f)
            out, gradient = program(f)
            seen = mask(f).any(-1).reshape(f.at.segment.shape)[..., None, None]
            found, wanted = {"out": np.where(seen, out, 0), **gradient}, {"out": expected, **slopes}
            for leaf, x in wanted.items():
                np.testing.assert_allclose(found[leaf], x, rtol=0, atol=1e-5 * (1 + abs(x).max()))

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
        given = tiny.jit(lambda f, found: run(f.arrays, f, name, worklists=found))(f, worklists)
        without = tiny.jit(lambda f: run(f.arrays, f, name))(f)
    assert np.array_equal(given, without)


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_mesh_each_device_has_its_documents_and_heads(name):
    f = forest(4, rows=4, trunk=40, branches=3, slots=16)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    both = lambda f: run_and_vjp(f, name)
    with small_blocks(), backend.interpreting():
        alone = tiny.jit(both)(f)
        with jax.set_mesh(mesh):
            placed = jax.device_put(f, batch_sharding(mesh))
            program = tiny.jit(lambda f: both(f)).lower(placed).compile()
    apart = program(placed)
    assert "all-gather" not in program.as_text()
    assert tiny.relative_error(apart, alone) < TOLERANCES["float32"]
    assert apart[0].sharding.spec[0] == ("data", "fsdp")


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
        alone = tiny.jit(run)(keys(f.arrays))
        found = tiny.jit(lambda keys: run(keys))(keys(stacked, jnp.int32(1)))
    assert np.array_equal(found, alone)


def test_what_a_tpus_scalar_memory_cannot_hold_has_worklists_in_parts(monkeypatch):
    f = forest(2, rows=4, trunk=90, branches=4, slots=20)
    both = lambda f: run_and_vjp(f, "pallas_tpu")
    with backend.interpreting():
        whole = tiny.jit(both)(f)
        monkeypatch.setattr(tpu, "SCALARS", 24)  # the steps of two rows, at four numbers each
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
    with backend.interpreting(), pytest.raises(ValueError, match="of all layers has no gradient"):
        jax.eval_shape(jax.grad(lambda x: run(x).sum()), jnp.stack([f.arrays["key"]] * 2))


def test_an_unknown_implementation_is_named():
    f = forest(0, branches=0)
    with pytest.raises(ValueError, match="flashy.*reference.*xla"):
        run(f.arrays, f, "flashy")


def test_a_kernel_that_cannot_serve_says_why(monkeypatch):
    f = forest(0, branches=0)
    with pytest.raises(ValueError, match="'pallas_tpu' cannot serve: it needs a TPU, and this is"):
        run(f.arrays, f, "pallas_tpu")
    with backend.compiling_for("cuda"):
        with pytest.raises(ValueError, match="head sizes 64, 128, 256, not 80"):
            chosen("pallas_gpu", 80, jnp.bfloat16)
        with pytest.raises(ValueError, match="it computes in bfloat16 .*, not float32; leave it"):
            chosen("pallas_hopper", 128, jnp.float32)
        assert chosen(None, 80, jnp.bfloat16) == "xla"
        assert chosen(None, 128, jnp.bfloat16) == "pallas_gpu"
        assert chosen("pallas_hopper", 128, jnp.bfloat16) == "pallas_hopper"
        monkeypatch.setattr(backend, "H200", backend.GPU((8, 0), 108))
        with pytest.raises(ValueError, match="it needs an H100 or H200"):
            chosen("pallas_hopper", 128, jnp.bfloat16)
        monkeypatch.setattr(backend, "H200", backend.GPU((7, 5), 72))
        with pytest.raises(ValueError, match="needs an NVIDIA GPU of Ampere's generation"):
            chosen("pallas_gpu", 128, jnp.bfloat16)
        assert chosen(None, 128, jnp.bfloat16) == "xla"
    with backend.compiling_for("tpu"):
        assert chosen(None, 64, jnp.float32) == "pallas_tpu"
    assert chosen(None, 64, jnp.float32) == "xla"


@pytest.mark.parametrize(
    ("said", "capability", "best"),
    [("9.0", (9, 0), "pallas_gpu"), ("7.0", (7, 0), "xla"), ("gfx942", (0, 0), "xla")],
)
def test_a_gpu_without_our_kernels_computes_without_them(said, capability, best, monkeypatch):
    device = types.SimpleNamespace(compute_capability=said, core_count=100)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert backend.gpu() == backend.GPU(capability, 100)
    assert chosen(None, 128, jnp.bfloat16) == best


# One run of queries and several, the last of them short or full; a group or many of them.
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
        assert len(runs) <= EXTENTS
    pairs = sum((stop - start) * stop for start, stop in query_runs(4096))
    assert pairs == pytest.approx(4096**2 * (1 + 1 / EXTENTS) / 2)
