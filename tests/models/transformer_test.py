"""Parameters of a network: their tree, their beginning, their dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.transformer import bind, count_parameters, init, shapes
from models.tree import Trunk, forward
from tests.support import tiny


def test_tree_of_parameters_is_the_one_that_is_counted():
    for changes in ({}, {"tie_embeddings": False, "qk_norm": "none"}):
        config = tiny.model_config(num_layers=1, **changes)
        made = init(config, jax.random.key(0))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
            lambda x: (x.shape, x.dtype), shapes(config)
        )
        assert sum(x.size for x in jax.tree.leaves(made)) == count_parameters(config)
        assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_layers_differ_at_the_start():
    made = init(tiny.model_config(), jax.random.key(0))
    for name in ("q", "k", "v", "o"):
        kernel = made["blocks"]["attention"][name]["kernel"]
        assert not np.allclose(kernel[0], kernel[1])
        assert np.std(kernel) == pytest.approx(0.02, rel=0.1)


def test_compute_dtype_is_that_of_activations_only():
    config = tiny.model_config(compute_dtype="bfloat16")
    model = bind(config, tiny.params(config))
    place = jnp.arange(6)[None, :]
    hidden = jax.eval_shape(forward, model, Trunk(place + 5, jnp.ones_like(place), place))
    assert hidden.dtype == jnp.bfloat16
    assert jax.eval_shape(model.logits, hidden).dtype == jnp.float32
