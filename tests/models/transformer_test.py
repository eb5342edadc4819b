"""Parameters of a network: their tree, initialization and dtype; how often layers are traced."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.attention import Attention
from models.transformer import bind, count_parameters, init, project, shapes, unrolled
from models.tree import Branches, Trunk, empty_branch_cache, extend, forward, prefill
from tests.support import tiny


def test_initialized_parameters_have_the_declared_shapes_and_count():
    for changes in ({}, {"tie_embeddings": False, "qk_norm": "none"}):
        config = tiny.model_config(num_layers=1, **changes)
        params = init(config, jax.random.key(0))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
            lambda x: (x.shape, x.dtype), shapes(config)
        )
        assert sum(x.size for x in jax.tree.leaves(params)) == count_parameters(config)
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_layers_are_initialized_differently():
    params = init(tiny.model_config(), jax.random.key(0))
    for name in ("q", "k", "v", "o"):
        kernel = params["blocks"]["attention"][name]["kernel"]
        assert not np.allclose(kernel[0], kernel[1])
        assert np.std(kernel) == pytest.approx(0.02, rel=0.1)


def test_compute_dtype_applies_to_activations_only():
    config = tiny.model_config(compute_dtype="bfloat16")
    model = bind(config, tiny.params(config))
    position = jnp.arange(6)[None, :]
    trunk = Trunk(position + 5, jnp.ones_like(position), position)
    hidden = jax.eval_shape(forward, model, trunk)
    assert hidden.dtype == jnp.bfloat16
    assert jax.eval_shape(model.logits, hidden).dtype == jnp.float32


@pytest.mark.parametrize(("pattern", "traced"), [("G", 1), ("LLG", 2)])
def test_equal_layers_of_a_decoding_step_are_traced_once(pattern, traced):
    window = 4 if "L" in pattern else 0
    config = tiny.model_config(num_layers=6, layer_pattern=pattern, sliding_window=window)
    model = unrolled(bind(config, tiny.params(config)))
    position = jnp.arange(6)[None, :]
    trunk = Trunk(position + 5, jnp.ones_like(position), position)
    slots, fork = position[:, None, :2], jnp.full((1, 1), 6)
    branches = Branches(slots + 5, slots + 6, slots >= 0, jnp.ones_like(fork), fork)

    def step(model):
        _, cache = prefill(model, trunk)
        own = empty_branch_cache(model, trunk, cache, branches, 2)
        return extend(model, trunk, cache, branches, own, 0, 1)

    on_slots = mock.Mock(side_effect=Attention.on_slots)
    with mock.patch.object(Attention, "on_slots", lambda *arguments: on_slots(*arguments)):
        jax.eval_shape(step, model)
    assert on_slots.call_count == traced


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_the_gradient_of_logits_is_that_of_the_product_up_to_rounding(tied, dtype, tolerance):
    config = tiny.model_config(tie_embeddings=tied, vocab_size=50, compute_dtype=dtype)
    keys = jax.random.split(jax.random.key(0), 3)
    rounded = lambda x: x.astype(dtype).astype(jnp.float32)
    hidden = rounded(jax.random.normal(keys[0], (2, 3, config.hidden_size)))
    head = rounded(jax.random.normal(keys[1], (50, config.hidden_size)))
    cotangent = jax.random.normal(keys[2], (2, 3, 50))
    given = head if tied else head.T
    logits, vjp = jax.vjp(lambda h, w: project(config, w, h.astype(dtype)), hidden, given)
    expected, expected_vjp = jax.vjp(lambda h, w: h @ (w.T if tied else w), hidden, given)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(vjp(cotangent), expected_vjp(cotangent), strict=True):
        assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)
