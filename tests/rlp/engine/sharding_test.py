"""The trainers' steps on every mesh of eight simulated devices equal those on one device.

Splitting a sum over devices changes only its order, so values agree to float32
rounding: 1e-5 of a leaf's norm, as between packed and repeated prefixes. Sampled actions are equal,
since a draw is within rounding of a border once in a hundred thousand, and the seeds are fixed.
The optimizer has epsilon 1: with a small one, Adam's first update is the sign of the gradient,
which turns the rounding of a zero gradient into a full step.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec

from models import backend
from models.sharding import batch_sharding, constrain, make_mesh, parameter_shardings
from rlp.data.rows import Rows
from rlp.engine import step
from rlp.engine.method import Method
from rlp.engine.placement import check_memory, gathered_bytes, state_shardings
from rlp.training.trainers import Clock, NextTokenTrainer, RLPTrainer
from tests.support import tiny
from tests.support.engine import OPTIMIZER

CONFIG = tiny.model_config(num_heads=8, num_kv_heads=8, head_dim=4)
HYBRID = dataclasses.replace(
    CONFIG, num_layers=3, layer_pattern="MD*", mamba_heads=4, mamba_head_dim=8, mamba_groups=2,
    mamba_state=4, delta_heads=4, delta_head_dim=8, delta_key_heads=2, delta_key_dim=4,
)  # fmt: skip
WORDS = tiny.words(CONFIG)
SETTINGS = tiny.rlp_settings(group_size=3, thought_length=3, horizon=2)
BATCH = tiny.documents(0, [12, 10, 9, 12, 7, 8, 11, 12], 12, 22)
KEY = jax.random.key(5)
WITH_KL = dataclasses.replace(SETTINGS, kl_weight=0.1)
WITH_TEXT = dataclasses.replace(WITH_KL, next_token_weight=0.5)
# As on an accelerator, and with several chunks of logits on every device.
SCANNED = {"unrolled_layers": 0, "unrolled_decoding": 0}
IN_CHUNKS = SCANNED | {"logits": 2**7}
# Every axis alone, and all three; the test of rollout batches has two axes.
MESHES = [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8)]
on_every_mesh = pytest.mark.parametrize(
    "sizes",
    [m if m == (2, 2, 2) else pytest.param(m, marks=pytest.mark.slow) for m in MESHES],
    ids=str,
)
slow = pytest.mark.slow


def prepared(sizes, settings):
    """Return a mesh, the shardings of the state, and the state on it."""
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    shardings = state_shardings(
        mesh, CONFIG, OPTIMIZER, True, settings.baseline_memory, settings.keeps_reference
    )
    params = jax.tree.map(jnp.copy, tiny.params(CONFIG))  # a step donates its state
    state = step.new_state(params, OPTIMIZER, True, settings.keeps_reference)
    moved = lambda params, share: jax.tree.map(lambda x: share * x, params)
    state = dataclasses.replace(
        state, baseline=moved(state.baseline, 0.7), reference=moved(state.reference, 0.8)
    )
    return mesh, shardings, jax.device_put(state, shardings)


@contextlib.contextmanager
def compiling_fast(**choices):
    """Trace with these choices for a CPU, and compile with little optimization."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", tiny.jit)
        patch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, **choices))
        yield


@functools.cache
def next_token(sizes, **choices):
    mesh, shardings, state = prepared(sizes, SETTINGS)
    state = dataclasses.replace(state, baseline=None)
    shardings = dataclasses.replace(shardings, baseline=None)
    with compiling_fast(**choices):
        trainer = NextTokenTrainer(CONFIG, OPTIMIZER, mesh, shardings)
        state, metrics, cost = trainer.step(state, Rows.of(BATCH), KEY)
    return jax.device_get(state), metrics, cost


def step_arrays(state):
    """Return all fields of a state, or of its shardings, except the counters."""
    return state.params, state.baseline, state.reference, state.optimizer


@functools.cache
def rlp_step(sizes, settings=SETTINGS, **choices):
    """Return thoughts and evidence of a step, the new state, its metrics and its cost."""
    with compiling_fast(**choices):
        mesh, shardings, state = prepared(sizes, settings)
        trainer = RLPTrainer(Method(CONFIG, settings, WORDS), OPTIMIZER, mesh, shardings)
        values = trainer.think(state, Rows.of(BATCH), KEY, Clock())
        thoughts, evidence = jax.device_get((values["rollout"].thoughts, values["evidence"]))
        state, metrics, cost = trainer.step(state, Rows.of(BATCH), KEY)
    for actual, expected in zip(
        jax.tree.leaves(step_arrays(state)),
        jax.tree.leaves(step_arrays(shardings)),
        strict=True,
    ):
        assert actual.sharding.is_equivalent_to(expected, actual.ndim)
    return thoughts, evidence, jax.device_get(state), metrics, cost


def assert_same_state(actual, expected):
    """Compare first moments, which are the gradient, and changes of parameters, nearly so."""
    start = jax.device_get(tiny.params(CONFIG))
    moments = lambda state: state.optimizer[1][0].mu
    assert tiny.relative_error(moments(actual), moments(expected)) < 1e-5
    change = lambda state: jax.tree.map(jnp.subtract, state.params, start)
    assert (
        tiny.relative_error(change(actual), change(expected)) < 1e-4
    )  # rounding of the parameters
    assert float(jnp.abs(change(expected)["embedding"]).max()) > 1e-3


def assert_same_step(actual, expected):
    thoughts, evidence, state, metrics, cost = actual
    one_thoughts, one_evidence, one_state, one_metrics, one_cost = expected
    assert np.array_equal(thoughts.actions, one_thoughts.actions)
    assert np.array_equal(thoughts.length, one_thoughts.length)
    np.testing.assert_allclose(thoughts.logprobs, one_thoughts.logprobs, atol=2e-5)
    for name in ("reasoned", "baseline", "rewards", "advantages"):
        a, b = getattr(evidence, name), getattr(one_evidence, name)
        np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)
    assert np.abs(one_evidence.advantages).max() > 0.1
    assert metrics["grad_norm"] == pytest.approx(one_metrics["grad_norm"], rel=1e-4)
    for name in ("kl", "next_token_loss"):
        assert metrics.get(name, 0) == pytest.approx(one_metrics.get(name, 0), rel=1e-5), name
    # Advantages, and so gradients, have relative differences of about 1e-6.
    assert_same_state(state, one_state)
    if state.baseline is not None:
        assert tiny.relative_error(state.baseline, one_state.baseline) < 1e-5
    timeless = lambda cost: dataclasses.replace(cost, seconds={})
    assert timeless(cost) == timeless(one_cost)


@on_every_mesh
def test_a_next_token_step_is_that_of_one_device(sizes):
    (state, metrics, cost), (expected_state, expected, expected_cost) = (
        next_token(sizes),
        next_token((1,) * 3),
    )
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-5), name
    assert cost.documents == expected_cost.documents
    assert_same_state(state, expected_state)


@on_every_mesh
def test_an_rlp_step_is_that_of_one_device(sizes):
    assert_same_step(rlp_step(sizes), rlp_step((1, 1, 1)))


@slow
@pytest.mark.parametrize(
    ("sizes", "micro_batch", "choices"),
    [
        pytest.param((2, 4, 1), 2, SCANNED, id="in parts"),
        pytest.param((1, 2, 4), 2, {"unrolled_layers": 0}, id="in parts, unrolled decoding"),
        pytest.param((2, 2, 2), 0, IN_CHUNKS, id="documents with branches, chunks of logits"),
    ],
)
def test_a_scan_over_layers_in_batches_is_one_device_at_once(sizes, micro_batch, choices):
    """With micro-batches of this many branches on every device; 0 for a single pass."""
    shards = sizes[0] * sizes[1]
    cut = dataclasses.replace(
        WITH_TEXT, max_branches_in_flight=3 * shards, update_micro_batch=micro_batch * shards
    )
    actual = rlp_step(sizes, cut, **choices)
    whole = rlp_step((1, 1, 1), WITH_TEXT)
    # A scan removes no unread work.
    counts = {"flops": actual[4].flops, "model_flops": actual[4].model_flops}
    assert_same_step(actual, (*whole[:4], dataclasses.replace(whole[4], **counts)))


@slow
@pytest.mark.parametrize("network", [CONFIG, HYBRID], ids=["attention", "hybrid"])
def test_no_layout_and_no_memory_changes_a_bit(network):
    """In bfloat16, in which a gathered copy must round as the layers do."""
    changes = [
        {},
        {"rollout_layout": "training"},
        {"baseline_memory": "host"},
        {"baseline_memory": "host", "baseline": "frozen"},
        {"baseline": "frozen"},
    ]
    config = dataclasses.replace(network, compute_dtype="bfloat16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "CONFIG", config)
        run = rlp_step.__wrapped__
        usual, at_rest, on_host, frozen_on_host, frozen = (
            run((2, 2, 2), dataclasses.replace(WITH_KL, **each)) for each in changes
        )
    assert usual[3].pop("gather_bytes") > 0
    assert "gather_bytes" not in at_rest[3]
    jax.tree.map(np.testing.assert_array_equal, usual[:4], at_rest[:4])
    on_host[3].pop("gather_bytes")
    jax.tree.map(np.testing.assert_array_equal, usual[:4], on_host[:4])
    jax.tree.map(np.testing.assert_array_equal, frozen[:4], frozen_on_host[:4])


def test_phi_and_reference_on_the_host_lie_there_and_is_refused_where_there_is_no_such_memory(
    monkeypatch,
):
    mesh, shardings, state = prepared(
        (2, 2, 2), dataclasses.replace(WITH_KL, baseline_memory="host")
    )
    kinds = lambda tree: {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}
    assert kinds(state.baseline) == kinds(state.reference) == {"pinned_host"}
    assert kinds((state.params, state.optimizer)) == {"device"}
    check_memory(mesh, "host")
    monkeypatch.setitem(check_memory.__globals__, "MEMORIES", {"host": "attic"})
    with pytest.raises(ValueError, match="rlp.baseline_memory='host'.* cannot address attic"):
        check_memory(mesh, "host")


def test_what_a_gathered_copy_costs():
    """By hand: matrices in bfloat16, gathered over four devices; norms are replicated."""
    config = dataclasses.replace(CONFIG, compute_dtype="bfloat16")
    matrices = 24 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48)
    norms = 4 * (32 + 2 * (2 * 32 + 2 * 4))  # bytes
    received, held = gathered_bytes(config, make_mesh(1, 4, 2))
    assert held == 2 * matrices / 2 + norms
    assert received == 2 * matrices / 2 * 3 / 4
    assert gathered_bytes(config, make_mesh(8, 1, 1)) == (0, 2 * matrices + norms)


@contextlib.contextmanager
def not_from_the_cache():
    """Compile without the cache, so that warnings are logged; JAX checks for a cache only once."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


INVOLUNTARY = "Involuntary full rematerialization"
where_it_is_told = pytest.mark.skipif(
    jax.__version_info__ >= (0, 12), reason="the compiler of this JAX no longer warns"
)


@where_it_is_told
@pytest.mark.parametrize(
    ("sizes", "micro_batch", "choices"),
    [
        pytest.param((2, 2, 2), 0, IN_CHUNKS, id="scan"),
        pytest.param((2, 2, 2), 2, SCANNED, id="scan in parts", marks=slow),
        pytest.param((1, 8, 1), 2, {"unrolled_layers": 8}, id="straight in parts", marks=slow),
    ],
)
def test_no_program_is_rematerialised_against_the_compilers_will(
    sizes, micro_batch, choices, capfd
):
    shards = sizes[0] * sizes[1]
    settings = tiny.rlp_settings(
        group_size=3, thought_length=3, prompt=(14, 5, 16), positions="loss",
        update_micro_batch=micro_batch * shards, next_token_weight=0.5, kl_weight=0.1,
    )  # fmt: skip
    with not_from_the_cache():
        rlp_step.__wrapped__(sizes, settings, **choices)
        next_token.__wrapped__(sizes, **choices)
    assert INVOLUNTARY not in capfd.readouterr().err


@where_it_is_told
def test_the_compiler_says_so_when_it_does(capfd):
    """An embedding lookup with a table that is sharded over both axes, and sharded rows."""
    mesh = make_mesh(2, 2, 2)
    table = jax.ShapeDtypeStruct(
        (24, 32), jnp.float32, sharding=jax.NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    )
    tokens = jax.ShapeDtypeStruct((8, 12), jnp.int32, sharding=batch_sharding(mesh))
    with not_from_the_cache(), jax.set_mesh(mesh):
        look_up = jax.jit(lambda table, tokens: constrain(table[tokens], "rows"))
        look_up.lower(table, tokens).compile()
    assert INVOLUNTARY in capfd.readouterr().err


def test_caches_are_split_over_rows_and_heads_and_the_copy_over_tensor_alone():
    mesh, shardings, state = prepared((2, 2, 2), SETTINGS)
    with compiling_fast(), jax.set_mesh(mesh):
        run = RLPTrainer(Method(CONFIG, SETTINGS, WORDS), OPTIMIZER, mesh, shardings).programs
        params = run["gather"](state.params)
        batch = Rows.of(BATCH).placed(mesh)
        reading = run["read"](params, params, batch, KEY, 0)
        rollout = run["rollout"](params, reading, 0, 2)
    for leaf in jax.tree.leaves((reading.documents.cache, rollout.branch_cache)):
        assert leaf.sharding.shard_shape(leaf.shape) == (2, 4, *leaf.shape[2:])
    places = parameter_shardings(mesh, params, gathered=True)
    assert jax.tree.map(lambda leaf: leaf.sharding.spec, params) == jax.tree.map(
        lambda place: place.spec, places
    )
    assert params["embedding"].sharding.shard_shape((24, 32)) == (12, 32)
