"""Nemotron-H: the forms of its config.json, its sizes, and the logits of transformers."""

import dataclasses
import math

import numpy as np
import pytest

from models import hf
from models.transformer import count_parameters
from tests.support import hf as theirs
from tests.support import hf_configs as configs
from tests.support.exchanged import assert_same_logits, our_logits

PATTERN = "M-M*"
NAMES = {
    "layers_block_type": ["mamba", "mlp", "mamba", "attention"],
    "layer_types": ["linear_attention", "mlp", "linear_attention", "full_attention"],
}


def tiny(**changes):
    """Return a tiny config.json without the kinds of its layers."""
    config = configs.tiny("nemotron_h")
    del config["hybrid_override_pattern"], config["num_hidden_layers"]
    return config | changes


def test_logits_are_those_of_transformers():
    """The slow tests compare more, among them packed and padded rows, and scanned layers."""
    model = theirs.their_model("nemotron_h")
    config = hf.read_config(theirs.config_json(model))
    params = theirs.parameters(model, config)
    tokens = np.random.default_rng(0).integers(3, theirs.BASE["vocab_size"], (1, 70))
    assert_same_logits(our_logits(config, params, tokens), theirs.their_logits(model, tokens))


@pytest.mark.parametrize(
    "layers",
    [
        {"hybrid_override_pattern": PATTERN},
        {"hybrid_override_pattern": PATTERN, "num_hidden_layers": 4, **NAMES},
        *({name: kinds} for name, kinds in NAMES.items()),
        {"layers_block_type": NAMES["layer_types"]},
    ],
)
def test_layers_are_read_in_all_spellings(layers):
    assert "".join(hf.read_config(tiny(**layers)).letters) == PATTERN


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, (0, 0)),
        ([0.0, math.inf], (0, 0)),
        ([0.0, 1e30], (0, 0)),
        ([0, {"__float__": "Infinity"}], (0, 0)),
        ([0.01, 0.5], (0.01, 0.5)),
        ([0.01, {"__float__": "Infinity"}], (0.01, 0)),
    ],
)
def test_limits_of_steps_are_read_in_all_spellings(limit, expected):
    given = {} if limit is None else {"time_step_limit": limit}
    model = hf.read_config(tiny(hybrid_override_pattern=PATTERN, **given))
    assert (model.mamba_step_min, model.mamba_step_max) == expected
    assert hf.read_config(hf.write_config(hf.BY_NAME["nemotron_h"], model)) == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "lacks the kinds of its layers: hybrid_override_pattern, layers_block_type or"),
        ({"hybrid_override_pattern": "ME"}, "hybrid_override_pattern has layers of experts"),
        ({"layers_block_type": ["mamba", "moe"]}, "layers_block_type has layers of experts"),
        ({"layer_types": ["mamba", "mlstm"]}, "layer_types has layers of the kind 'mlstm'"),
        ({"hybrid_override_pattern": "MX"}, "hybrid_override_pattern='MX' is not supported"),
        (NAMES | {"hybrid_override_pattern": "M-"}, "layers_block_type contradicts hybrid_over"),
        ({"hybrid_override_pattern": "M-", "num_hidden_layers": 3}, "num_hidden_layers=3 contra"),
        ({"hybrid_override_pattern": "M", "mamba_n_groups": 4}, "mamba_n_groups=4 contradicts n_g"),
        ({"hybrid_override_pattern": "M", "attention_head_dim": 64}, "attention_head_dim=64 contr"),
        ({"hybrid_override_pattern": "M", "norm_eps": 1e-6}, "norm_eps=1e-06 contradicts layer_no"),
        ({"hybrid_override_pattern": "M", "residual_in_fp32": True}, "residual_in_fp32=True is no"),
        ({"hybrid_override_pattern": "M", "use_bias": True}, "use_bias=True is not supported"),
        ({"hybrid_override_pattern": "M", "n_groups": 3}, "model.mamba_heads=8 is not a multiple"),
        ({"hybrid_override_pattern": "M", "sliding_window": 64}, "sliding_window=64 is not supp"),
        ({"hybrid_override_pattern": "M", "time_step_limit": [1, 0]}, r"time_step_limit=\[1, 0\]"),
        ({"hybrid_override_pattern": "M", "time_step_limit": [0]}, r"time_step_limit=\[0\] is not"),
    ],
)
def test_what_would_be_computed_differently_is_refused_by_name(changes, message):
    with pytest.raises(hf.Unsupported, match=message):
        hf.read_config(tiny(**changes))


def test_fields_without_effect_are_kept_in_an_export():
    """Also when the network changes: here it becomes deeper."""
    inert = {
        "expand": 2,
        "chunk_size": 256,
        "n_routed_experts": 8,
        "rope_theta": 7.0,
        "partial_rotary_factor": 0.5,
        "time_step_floor": 1e-4,
        "norm_eps": 1e-5,
        "attention_head_dim": 16,
    }
    config = tiny(layers_block_type=NAMES["layers_block_type"], **inert)
    model = hf.read_config(config)
    deeper = hf.read_config(tiny(hybrid_override_pattern=PATTERN * 2))
    assert hf.replaced(config, model) == config
    exported = hf.replaced(config, deeper)
    assert exported.items() >= inert.items()
    assert hf.read_config(exported) == deeper
    assert hf.unread_fields(config) == []
    assert hf.unread_fields(config | {"other": 1}) == ["other"]


def test_a_family_is_found_for_a_hybrid_and_not_for_its_layers_with_others():
    model = hf.read_config(tiny(hybrid_override_pattern=PATTERN))
    assert hf.family_for(model).name == "nemotron_h"
    with pytest.raises(hf.Unsupported, match="nemotron_h has no layers G in"):
        hf.write_config(hf.BY_NAME["nemotron_h"], dataclasses.replace(model, layer_pattern="MG"))


# Public configs: pattern, width, inner width, heads, and dimension, heads and groups of Mamba-2.
SIZES = {
    "Nemotron-Nano-12B-v2-Base": (
        "M-M-M-M*-" * 6 + "M-" * 4, 5120, 20480, 40, 128, 80, 12_310_001_152,
    ),
    "Nemotron-H-8B-Base-8K": (
        "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", 4096, 21504, 32, 128, 64,
        8_100_852_736,
    ),
    "Nemotron-Nano-9B-v2": (
        "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", 4480, 15680, 40, 128, 80,
        8_888_227_328,
    ),
    "Nemotron-3-Nano-4B": (
        "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-", 3136, 12544, 40, 96, 80, 3_973_556_832,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in SIZES])
def test_full_size_networks_have_the_parameters_of_transformers(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pattern, width, ffn, heads, mamba_heads, mamba_head_dim, count = SIZES[name]
    config_json = {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": pattern,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "mamba_num_heads": mamba_heads,
        "mamba_head_dim": mamba_head_dim,
    }
    config = hf.read_config(config_json)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config_json)
        )
    expected = {path: tuple(x.shape) for path, x in model.named_parameters()}
    tensors = hf.as_in(expected, hf.tensors(hf.family_of(config_json), config))
    assert hf.whole_shapes(tensors) == expected
    assert count_parameters(config) == count == sum(map(math.prod, expected.values()))
