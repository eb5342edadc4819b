"""The text part of Qwen3.5: the forms of its config.json, and the logits of transformers."""

import dataclasses
import math

import numpy as np
import pytest

from models import hf
from models.transformer import count_parameters
from tests.support import hf as theirs
from tests.support import hf_configs as configs
from tests.support import tiny as small
from tests.support.exchanged import assert_same_logits, our_logits

FAMILY = "qwen3_5_text"


def tiny(**changes):
    return configs.tiny(FAMILY, **changes)


def whole(**changes):
    """Return config.json of a model of images and text."""
    text = tiny(tie_word_embeddings=True)
    return {"model_type": "qwen3_5", "text_config": text, "vision_config": {"depth": 2}} | changes


def test_logits_are_those_of_transformers():
    """The slow tests compare more, among them packed and padded rows, and scanned layers."""
    model = theirs.their_model("qwen3_5")
    config = hf.read_config(theirs.config_json(model))
    params = theirs.parameters(model, config)
    tokens = np.random.default_rng(0).integers(3, theirs.BASE["vocab_size"], (1, 70))
    assert_same_logits(our_logits(config, params, tokens), theirs.their_logits(model, tokens))


@pytest.mark.parametrize(
    ("changes", "letters"),
    [
        ({}, "DDDG"),
        ({"full_attention_interval": 2}, "DGDG"),
        ({"layer_types": ["linear_attention", "full_attention"] * 2}, "DGDG"),
        ({"layer_types": ["full_attention"] * 4, "full_attention_interval": 2}, "GGGG"),
    ],
)
def test_layers_are_read_in_both_spellings(changes, letters):
    assert "".join(hf.read_config(tiny(**changes)).letters) == letters


@pytest.mark.parametrize(
    ("rope", "factor"),
    [
        ({}, 0.25),
        ({"partial_rotary_factor": 0.5}, 0.5),
        ({"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 3e4}}, 0.5),
        ({"rope_parameters": {"mrope_section": [11, 11, 10], "mrope_interleaved": True}}, 0.25),
    ],
)
def test_heads_are_rotated_in_part(rope, factor):
    """Positions of images have three coordinates, which are equal in a text."""
    config = tiny(**rope)
    model = hf.read_config(config)
    assert model.rope.partial_rotary_factor == factor
    assert hf.unread_fields(config) == []
    other = dataclasses.replace(model, rope=dataclasses.replace(model.rope, theta=7.0))
    assert hf.read_config(hf.replaced(config, other)) == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3_5_moe_text"}, "model_type='qwen3_5_moe_text' has layers of experts"),
        ({"layer_types": ["linear_attention"] * 3}, "layer_types=.* in 4 layers"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types="),
        ({"full_attention_interval": 0}, "full_attention_interval=0 is not a whole number above"),
        ({"sliding_window": 4}, "sliding_window=4 is not supported in qwen3_5_text"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act='gelu_pytorch_tanh' is not supported in"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"num_experts": 8}, "num_experts=8 is not supported"),
        ({"linear_num_key_heads": 3}, "model.delta_heads=4 is not a multiple of model.delta_key"),
        ({"partial_rotary_factor": 0.1}, "partial_rotary_factor=0.1 rotates 1 of model.head_dim"),
        ({"rope_parameters": {"partial_rotary_factor": None}}, "partial_rotary_factor=None is not"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope' is not supported"),
    ],
)
def test_what_would_be_computed_differently_is_refused_by_name(changes, message):
    with pytest.raises(hf.Unsupported, match=message):
        hf.read_config(tiny(**changes))


def test_a_model_of_images_and_text_has_a_language_model():
    text = hf.language_model(whole())
    assert hf.read_config(text) == hf.read_config(tiny(tie_word_embeddings=True))
    assert hf.language_model(text) == text
    assert hf.language_model(whole(tie_word_embeddings=True)) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": None}, "text_config of model_type='qwen3_5' is not a qwen3_5_text"),
        ({"text_config": {"model_type": "qwen3"}}, "is not a qwen3_5_text"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings of text_config contradicts tie_word"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=\{'bits': 4\} is not supp"),
    ],
)
def test_a_language_model_that_cannot_be_read_is_refused_by_name(changes, message):
    with pytest.raises(hf.Unsupported, match=message):
        hf.read_config(hf.language_model(whole(**changes)))


def test_fields_without_effect_are_kept_in_an_export():
    """Also when the network changes: here it becomes deeper."""
    kept = {"mtp_num_hidden_layers": 1, "attn_output_gate": True, "mamba_ssm_dtype": "float32"}
    config = tiny(full_attention_interval=4, **kept)
    model = hf.read_config(config)
    assert hf.replaced(config, model) == config
    assert hf.unread_fields(config) == sorted(kept)
    deeper = dataclasses.replace(model, num_layers=8, layer_pattern="DG")
    exported = hf.replaced(config, deeper)
    assert exported.items() >= kept.items()
    assert "full_attention_interval" not in exported
    assert hf.read_config(exported) == deeper


def test_a_family_is_found_for_a_hybrid_and_not_for_its_layers_with_others():
    model = hf.read_config(tiny())
    assert hf.family_for(model).name == FAMILY
    for changes in ({"attention_gate": False}, {"zero_centered_norm": False}):
        with pytest.raises(
            hf.Unsupported, match=f"{FAMILY} has no networks with model.{[*changes][0]}"
        ):
            hf.family_for(dataclasses.replace(model, **changes))
    with pytest.raises(hf.Unsupported, match=f"{FAMILY} has no layers"):
        hf.family_for(dataclasses.replace(model, layer_pattern="D*-D"))
    assert hf.family_for(small.model_config()).name == "qwen3"


@pytest.mark.slow
def test_the_default_network_has_the_parameters_of_transformers():
    """That of 9B, with matrices of its own for the output."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_json = {"model_type": FAMILY}
    config = hf.read_config(config_json)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config_json)
        )
    expected = {path: tuple(x.shape) for path, x in model.named_parameters()}
    assert hf.whole_shapes(hf.tensors(hf.family_of(config_json), config)) == expected
    assert count_parameters(config) == sum(map(math.prod, expected.values()))
