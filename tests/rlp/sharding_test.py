"""Eight simulated devices do what one does: a next-token step and a whole RLP step.

Splitting a sum over devices changes its order and nothing else, so figures agree to float32
rounding: 1e-5 of a leaf's norm, as between packed and repeated prefixes. Sampled actions are equal,
because a draw falls within rounding of a border once in a hundred thousand; the seeds are fixed.
The optimizer has epsilon 1: with a small one Adam's first move is the sign of the gradient, which
turns rounding into a full step where a gradient is zero.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.sharding import batch_sharding, make_mesh, replicated
from rlp import step
from rlp.optimizer import make_optimizer
from rlp.placement import state_shardings
from tests import tiny

CONFIG = tiny.model_config(num_heads=8, num_kv_heads=8, head_dim=4)
WORDS = tiny.words(CONFIG)
SETTINGS = tiny.rlp_settings(group_size=3, thought_length=3, horizon=2)
BATCH = tiny.documents(0, [12, 10, 9, 12, 7, 8, 11, 12], 12, 22)
KEY = jax.random.key(5)
OPTIMIZER = make_optimizer(
    learning_rate=1.0, schedule="constant", warmup_steps=0, final_share=1.0, total_steps=10,
    beta1=0.9, beta2=0.95, epsilon=1.0, weight_decay=0.0, clip_norm=0.0,
)  # fmt: skip
MESHES = [(2, 2, 2), (8, 1, 1), (1, 4, 2), (1, 1, 8), (1, 8, 1)]
on_every_mesh = pytest.mark.parametrize(
    "sizes",
    [m if m == (2, 2, 2) else pytest.param(m, marks=pytest.mark.slow) for m in MESHES],
    ids=str,
)


def place(sizes):
    """Initial state and batch on a mesh, the shardings of both, and their compiler."""
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = make_mesh(*sizes, devices=devices)
    state = step.new_state(tiny.params(CONFIG), OPTIMIZER, True)
    shardings = state_shardings(mesh, CONFIG, OPTIMIZER, True)
    batch = jax.device_put(BATCH, batch_sharding(mesh))
    return jax.device_put(state, shardings), batch, shardings, replicated(mesh)


@functools.cache
def next_token(sizes):
    state, batch, shardings, whole = place(sizes)
    run = tiny.jit(
        functools.partial(step.next_token_stage, CONFIG, OPTIMIZER),
        out_shardings=(shardings, whole),
    )
    return jax.device_get(run(state, batch))


@functools.cache
def rlp_step(sizes):
    state, batch, shardings, whole = place(sizes)
    plain = (CONFIG, SETTINGS, WORDS)
    rollout, reading = tiny.rollout_stage(*plain)(
        state.params, state.params, batch, KEY, state.step
    )
    evidence = tiny.evidence_stage(*plain)(state.params, state.baseline, batch, rollout, reading)
    run = tiny.jit(
        functools.partial(step.update_stage, *plain, OPTIMIZER), out_shardings=(shardings, whole)
    )
    after, metrics = run(state, rollout, evidence)
    kept = after.params["embedding"].sharding
    assert kept == shardings.params["embedding"]
    return jax.device_get((reading.forks, rollout.thoughts, evidence, after, metrics))


def assert_same_state(found, expected):
    """First moments are the gradient; the change of the parameters is nearly that."""
    start = jax.device_get(tiny.params(CONFIG))
    moments = lambda state: state.optimizer[1][0].mu
    assert tiny.relative_error(moments(found), moments(expected)) < 1e-5
    change = lambda state: jax.tree.map(jnp.subtract, state.params, start)
    assert tiny.relative_error(change(found), change(expected)) < 1e-4  # parameters' own rounding
    assert float(jnp.abs(change(expected)["embedding"]).max()) > 1e-3


@on_every_mesh
def test_a_next_token_step_is_that_of_one_device(sizes):
    (state, metrics), (expected_state, expected) = next_token(sizes), next_token((1, 1, 1))
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-5), name
    assert_same_state(state, expected_state)


@on_every_mesh
def test_an_rlp_step_is_that_of_one_device(sizes):
    forks, thoughts, evidence, state, metrics = rlp_step(sizes)
    one_forks, one_thoughts, one_evidence, one_state, one_metrics = rlp_step((1, 1, 1))
    assert np.array_equal(forks.position, one_forks.position)
    assert np.array_equal(thoughts.actions, one_thoughts.actions)
    assert np.array_equal(thoughts.length, one_thoughts.length)
    np.testing.assert_allclose(thoughts.logprobs, one_thoughts.logprobs, atol=2e-5)
    for name in ("reasoned", "baseline", "rewards", "advantages"):
        a, b = getattr(evidence, name), getattr(one_evidence, name)
        np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)
    assert np.abs(one_evidence.advantages).max() > 0.1
    assert metrics["grad_norm"] == pytest.approx(float(one_metrics["grad_norm"]), rel=1e-4)
    # The advantages differ by some 1e-6 of their size, and with them the gradient.
    assert_same_state(state, one_state)
