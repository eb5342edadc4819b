"""Parameters of a network: their tree, initialization and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformer import bind, count_parameters, init, shapes
from models.tree import Trunk, forward
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
