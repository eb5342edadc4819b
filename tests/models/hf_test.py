"""Networks of Hugging Face families have the logits of transformers, up to rounding."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend, hf
from models.config import ModelConfig
from models.paths import by_name
from models.rope import Rope
from models.sharding import LOGICAL_AXES, batch_sharding, make_mesh, parameter_shardings
from models.transformer import bind, count_parameters, shapes
from models.tree import Trunk, forward
from tests.support import hf as theirs
from tests.support import tiny


@tiny.jit
def all_logits(model, trunk: Trunk) -> jax.Array:
    return model.logits(forward(model, trunk))


def our_logits(params, config: ModelConfig, tokens, segment, position) -> np.ndarray:
    trunk = Trunk(*(jnp.asarray(x, jnp.int32) for x in (tokens, segment, position)))
    return np.asarray(all_logits(bind(config, params), trunk))


def ours(name: str):
    """Return the transformers model, our config and our parameters."""
    model = theirs.their_model(name)
    config = hf.read_config(theirs.config_json(model))
    return model, config, theirs.parameters(model, config)


def random_tokens(seed: int, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, theirs.BASE["vocab_size"], (rows, length))


def assert_same_logits(logits: np.ndarray, expected: np.ndarray) -> None:
    assert np.std(expected) > 0.5
    assert np.abs(logits - expected).max() <= 1e-5 * (expected.max() - expected.min())


@theirs.every_model
def test_logits_are_those_of_transformers(name):
    model, config, params = ours(name)
    for length in (1, 33, 130):
        tokens = random_tokens(length, 2, length)
        position = np.broadcast_to(np.arange(length), tokens.shape)
        logits = our_logits(params, config, tokens, np.ones_like(position), position)
        assert_same_logits(logits, theirs.their_logits(model, tokens))


@theirs.every_model
def test_scanned_layers_give_the_same_logits(name, monkeypatch):
    model, config, params = ours(name)
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, unrolled_layers=0))
    tokens = random_tokens(5, 2, 33)
    position = np.broadcast_to(np.arange(33), tokens.shape)
    logits = our_logits(params, config, tokens, np.ones_like(position), position)
    assert not isinstance(bind(config, params).blocks, list)
    assert_same_logits(logits, theirs.their_logits(model, tokens))


@pytest.mark.parametrize(
    "name",
    ["gemma3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2", "olmo3"))],
)
def test_a_mesh_changes_nothing(name):
    model, config, params = ours(name)
    mesh = make_mesh(2, 2, 2)
    params = jax.device_put(params, parameter_shardings(mesh, params))
    tokens = jax.device_put(random_tokens(6, 4, 20), batch_sharding(mesh))
    position = np.broadcast_to(np.arange(20), tokens.shape)
    logits = our_logits(params, config, tokens, np.ones_like(position), position)
    assert_same_logits(logits, theirs.their_logits(model, np.asarray(tokens)))


@theirs.every_model
def test_padding_and_packed_documents_change_nothing(name):
    model, config, params = ours(name)
    tokens, lengths = random_tokens(7, 2, 40), np.array([40, 23])
    mask = np.arange(40)[None, :] < lengths[:, None]
    position = np.broadcast_to(np.arange(40), tokens.shape)
    expected = theirs.their_logits(model, tokens, mask.astype(np.int64))
    padded = our_logits(params, config, tokens, mask, position)
    assert_same_logits(padded[mask], expected[mask])
    # Both rows packed into one, as two documents.
    row = lambda x: x[mask][None]
    segment = np.repeat([1, 2], lengths)[None]
    packed = our_logits(params, config, row(tokens), segment, row(position))
    assert_same_logits(packed[0], expected[mask])


@theirs.every_model
def test_bfloat16_rounds_as_much_as_transformers_does(name):
    """Both round every activation to 8 bits, so their errors relative to float32 are similar."""
    torch = pytest.importorskip("torch")
    model, config, params = ours(name)
    tokens = random_tokens(3, 4, 64)
    position = np.broadcast_to(np.arange(64), tokens.shape)
    rough = copy.deepcopy(model)
    for parameter in rough.parameters():  # `.to` would also round the rotary frequencies
        parameter.data = parameter.data.to(torch.bfloat16)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    run = lambda dtype: our_logits(
        params,
        dataclasses.replace(config, compute_dtype=dtype),
        tokens,
        np.ones_like(position),
        position,
    )
    exact = run("float32")
    error = lambda logits: np.sqrt(np.mean((logits - exact) ** 2))
    their_error = error(theirs.their_logits(rough, tokens))
    assert 0 < error(run("bfloat16")) < 1.25 * their_error
    assert their_error < 0.05 * np.std(exact)
    assert_same_logits(exact, theirs.their_logits(rough.float(), tokens))


@theirs.every_model
def test_configs_survive_a_round_trip(name):
    config_json = theirs.config_json(theirs.their_model(name))
    config = hf.read_config(config_json)
    family = hf.family_of(config_json)
    written = hf.write_config(family, config)
    assert hf.read_config(written) == config
    # transformers reads the original values from it.
    transformers = pytest.importorskip("transformers")
    again = transformers.AutoConfig.for_model(**written).to_dict()
    inert = hf.inert(family) | {"attention_dropout", "query_pre_attn_scalar"}
    for field in set(config_json) - inert:
        others = ("head_dim", "max_window_layers", "time_step_limit")
        assert again[field] == config_json[field] or field in others, field
    if not family.rotary:
        return
    # Old and new readers have different names for rotary parameters; each form is sufficient.
    old = {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    new = {name: x for name, x in written.items() if name not in old}
    assert hf.read_config(new | {"rope_parameters": config_json["rope_parameters"]}) == config


@theirs.every_model
def test_every_parameter_has_one_weight_and_every_operation_is_invertible(name):
    config_json = theirs.config_json(theirs.their_model(name))
    config, family = hf.read_config(config_json), hf.family_of(config_json)
    leaves = by_name(shapes(config))
    tensors = [t for t in hf.tensors(family, config) if not t.copy_of]
    assert {t.path for t in tensors} == set(leaves) <= set(LOGICAL_AXES)
    assert sum(np.prod(t.shape) for t in tensors) == count_parameters(config)
    assert len({(t.name, repr(t.rows)) for t in tensors}) == len(tensors)
    assert sum(map(np.prod, hf.whole_shapes(tensors).values())) == count_parameters(config)
    for tensor in tensors:
        x = np.random.default_rng(0).normal(size=tensor.shape)
        shape = leaves[tensor.path].shape
        assert tensor.ours(x).shape == (shape if tensor.layer is None else shape[1:])
        assert np.array_equal(tensor.theirs(tensor.ours(x)), x)


def plain(**changes) -> hf.Json:
    return theirs.config_json(theirs.their_model("qwen3")) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not supported; these are: qwen3"),
        ({"model_type": "gemma3"}, "images"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "only Qwen3ForCausalLM"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
        ({"attention_dropout": 0.1}, "attention_dropout=0.1"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=\{'bits': 4\}"),
        ({"num_experts": 8, "rope_scaling": None}, "num_experts=8"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope'.*llama3.*yarn"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}},
            "rope_type='yarn' with mscale=1.0",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "'linear' lacks factor"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}},
            "truncate=False",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"rope_theta": 5.0}, "contradicts"),
        (
            {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 4},
            "lacks sliding",
        ),
        ({"layer_types": ["chunked_attention"] * 4}, "layer_types="),
    ],
)
def test_what_would_be_computed_differently_is_refused_by_name(changes, message):
    with pytest.raises(hf.Unsupported, match=message):
        hf.read_config(plain(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_mrope": False},  # as in the base models of Qwen2.5
        {"unsloth_fixed": True, "is_llama_config": True, "partial_rotary_factor": 1.0},
        {"rope_parameters": None, "rope_theta": 1000000.0, "rope_scaling": None},
        {"head_dim": 16, "attention_dropout": 0},
    ],
)
def test_fields_without_effect_are_ignored(changes):
    assert hf.read_config(plain(**changes)) == hf.read_config(plain())


def test_a_missing_window_is_the_default_and_null_is_none():
    config_json = theirs.config_json(theirs.their_model("mistral"))
    del config_json["sliding_window"]
    assert hf.read_config(config_json).sliding_window == 4096
    assert hf.read_config(config_json | {"sliding_window": None}).layer_pattern == "G"


def test_a_cap_that_transformers_does_not_apply_is_refused():
    config_json = theirs.config_json(theirs.their_model("gemma3"))
    with pytest.raises(hf.Unsupported, match="attn_logit_softcapping=50.0"):
        hf.read_config(config_json | {"attn_logit_softcapping": 50.0})


def test_a_family_is_found_for_a_new_network():
    for changes, name in (
        ({}, "qwen3"),
        ({"qk_norm": "none", "qkv_bias": True}, "qwen2"),
        ({"qk_norm": "none"}, "llama"),
        ({"qk_norm": "none", "sliding_window": 4, "layer_pattern": "L"}, "mistral"),
        ({"qk_norm": "all_heads", "norm": "after"}, "olmo2"),
    ):
        assert hf.family_for(tiny.model_config(**changes)).name == name
    with pytest.raises(hf.Unsupported, match=r"no Hugging Face family.*model.scale_embedding=True"):
        hf.family_for(tiny.model_config(scale_embedding=True))


# Public configs, and their number of parameters in transformers, which the model cards round.
SIZES = {
    "Qwen3-0.6B": ("qwen3", 151936, 1024, 28, 16, 8, 128, 3072, True, 596_049_920),
    "Qwen3-1.7B": ("qwen3", 151936, 2048, 28, 16, 8, 128, 6144, True, 1_720_574_976),
    "Qwen3-8B": ("qwen3", 151936, 4096, 36, 32, 8, 128, 12288, False, 8_190_735_360),
    "Qwen3-14B": ("qwen3", 151936, 5120, 40, 40, 8, 128, 17408, False, 14_768_307_200),
    "Qwen2.5-0.5B": ("qwen2", 151936, 896, 24, 14, 2, 64, 4864, True, 494_032_768),
    "Qwen2.5-7B": ("qwen2", 152064, 3584, 28, 28, 4, 128, 18944, False, 7_615_616_512),
    "Llama-3.2-1B": ("llama", 128256, 2048, 16, 32, 8, 64, 8192, True, 1_235_814_400),
    "Llama-3.1-8B": ("llama", 128256, 4096, 32, 32, 8, 128, 14336, False, 8_030_261_248),
    "Llama-3.1-70B": ("llama", 128256, 8192, 80, 64, 8, 128, 28672, False, 70_553_706_496),
    "Mistral-7B-v0.1": ("mistral", 32000, 4096, 32, 32, 8, 128, 14336, False, 7_241_732_096),
    "OLMo-2-1124-7B": ("olmo2", 100352, 4096, 32, 32, 32, 128, 11008, False, 7_298_617_344),
    "Olmo-3-1025-7B": ("olmo3", 100278, 4096, 32, 32, 32, 128, 11008, False, 7_298_011_136),
    "gemma-3-1b-pt": ("gemma3_text", 262144, 1152, 26, 4, 1, 256, 6912, True, 999_885_952),
}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_full_size_networks_have_the_parameters_of_their_model_cards(name):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    kind, vocab, width, layers, heads, kv_heads, head_dim, ffn, tied, count = SIZES[name]
    config_json = {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": ffn,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
    }
    if kind == "gemma3_text":
        del config_json["hidden_act"]
        config_json |= {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256}
    if kind in ("gemma3_text", "olmo3", "mistral"):
        config_json["sliding_window"] = 4096
    config = hf.read_config(config_json)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config_json)
        )
    expected = {path: tuple(x.shape) for path, x in model.named_parameters()}
    tensors = hf.tensors(hf.family_of(config_json), config)
    assert {t.name: t.shape for t in tensors if not t.copy_of} == expected
    assert count_parameters(config) == count


def test_rope_scaling_keeps_high_frequencies_and_divides_low_ones():
    plain = Rope(1e4).frequencies(64, local=False)
    for rope in (
        Rope(1e4, scaling="llama3", factor=8.0, original_length=1024),
        Rope(1e4, scaling="yarn", factor=8.0, original_length=1024),
    ):
        ratio = rope.frequencies(64, local=False) / plain
        assert ratio[0] == 1
        assert ratio[-1] == pytest.approx(1 / 8)
        assert np.all(np.diff(ratio) <= 0)
    linear = Rope(1e4, scaling="linear", factor=8.0, local_theta=10.0)
    assert np.allclose(linear.frequencies(64, local=False), plain / 8)
    assert np.array_equal(
        linear.frequencies(64, local=True), Rope(10.0).frequencies(64, local=False)
    )
