"""The network is Qwen3's: the same logits, the same number of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.transformer import bind, count_parameters, init, shapes
from models.tree import Trunk, forward
from tests import hf, tiny


def their_model(transformers, torch, config: ModelConfig):
    """A random transformers model of this shape; Qwen3, or Llama where there is no QK norm."""
    kind = "Qwen3" if config.qk_norm else "Llama"
    made = getattr(transformers, f"{kind}Config")(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.ffn_size,
        rms_norm_eps=config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_embeddings,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(made).eval()
    with torch.no_grad():  # larger than their default, so that attention is far from uniform
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.15)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False, "num_kv_heads": 4, "rope_theta": 1e6},
        {"num_kv_heads": 1, "norm_epsilon": 1e-3},
        {"qk_norm": False, "tie_embeddings": False},
    ],
    ids=["qwen3", "untied", "one-kv-head", "llama"],
)
def test_logits_are_those_of_transformers(changes):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = tiny.model_config(vocab_size=40, head_dim=12, **changes)
    theirs = their_model(transformers, torch, config)
    tokens = np.random.default_rng(0).integers(0, 40, (3, 29))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()

    place = jnp.broadcast_to(jnp.arange(29)[None, :], tokens.shape)
    model = bind(config, hf.parameters(theirs, config))
    found = model.logits(forward(model, Trunk(jnp.asarray(tokens), jnp.ones_like(place), place)))
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_tree_of_parameters_is_the_one_that_is_counted():
    for changes in ({}, {"tie_embeddings": False, "qk_norm": False}):
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


def test_qwen3_1p7b_has_its_parameters():
    config = ModelConfig(
        vocab_size=151936,
        hidden_size=2048,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        ffn_size=6144,
        rope_theta=1e6,
    )
    width, heads, kv, ffn = 2048, 16 * 128, 8 * 128, 6144
    attention = width * heads + 2 * width * kv + heads * width + 2 * 128
    block = attention + 3 * width * ffn + 2 * width
    by_formula = 151936 * width + 28 * block + width
    assert count_parameters(config) == by_formula == 1_720_574_976


def test_compute_dtype_is_that_of_activations_only():
    config = tiny.model_config(compute_dtype="bfloat16")
    model = bind(config, tiny.params(config))
    place = jnp.arange(6)[None, :]
    hidden = jax.eval_shape(forward, model, Trunk(place + 5, jnp.ones_like(place), place))
    assert hidden.dtype == jnp.bfloat16
    assert jax.eval_shape(model.logits, hidden).dtype == jnp.float32
