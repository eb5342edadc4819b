"""All fields of config.json that transformers reads are supported, refused or declared to have no
effect, and missing or null fields mean the same as in transformers."""

import copy
import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models import hf
from models.config import ModelConfig
from models.hf.config import ACTIVATIONS
from models.hf.families import fixed
from models.hf.fields import FIXED, HARMLESS, supported
from models.hf.qwen import DELTA
from models.hf.rope import NEUTRAL, OTHERS, ROPES
from tests.support import hf as theirs
from tests.support import hf_configs as configs
from tests.support import transformers_source as source

# All fields that transformers reads are declared.


@configs.every_family
def test_what_the_source_of_transformers_reads_is_declared(family):
    known = hf.BY_NAME[family]
    declared = supported(known) | fixed(known) | hf.inert(known)
    unknown = source.in_source(family) - declared
    assert not unknown, "support, refuse (FIXED) or declare (HARMLESS) these in models/hf/fields.py"


def test_reads_of_every_form_are_found_in_the_source():
    """One name for each form: an attribute, getattr, hasattr, kwargs.pop, kwargs.get, a string in a
    dict, a declared field, and a field of a mixin."""
    llama = {
        *("hidden_size", "head_dim", "original_max_position_embeddings", "rope_theta"),
        *("configuration_files", "mlp_bias", "partial_rotary_factor", "transformers_weights"),
        *("is_causal", "num_local_experts", "quantization_config"),
    }
    assert llama <= source.in_source("llama")
    gemma = {"sliding_window_pattern", "query_pre_attn_scalar", "rope_local_base_freq"}
    assert gemma <= source.in_source("gemma3_text")
    assert not gemma & source.in_source("llama")


@configs.every_family
def test_what_a_run_of_transformers_reads_is_declared(family, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    configs.their_model(configs.tiny(family)).save_pretrained(tmp_path)
    tokens = torch.arange(3, 15)[None]
    with source.in_a_run(family) as read:
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
        model(tokens, labels=tokens).loss.backward()
        model.generate(tokens, do_sample=False, max_new_tokens=2)
    assert "hidden_size" in read
    known = hf.BY_NAME[family]
    unknown = read - supported(known) - fixed(known) - hf.inert(known)
    assert not unknown, "support, refuse (FIXED) or declare (HARMLESS) these in models/hf/fields.py"


def test_every_field_that_is_declared_harmless_is_read_by_transformers():
    read = frozenset().union(*(source.in_source(family) for family in hf.BY_NAME))
    # model_type selects the config class; the others are read in a loop over names.
    assert hf.INERT - read == {
        "model_type",
        "vision_aspect_ratio",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    }
    assert len(hf.INERT) == sum(map(len, HARMLESS.values()))
    assert not hf.INERT & FIXED.keys()


def test_the_parameters_of_rotary_scaling_are_those_that_transformers_reads():
    methods = set(dir(dict))
    known = NEUTRAL.keys() | OTHERS
    assert source.rope_parameters() - methods <= known
    assert known >= {name for names in ROPES.values() for name in names}
    assert known - source.rope_parameters() == {"mrope_section"}


# Missing and null fields.


@configs.every_family
def test_what_only_other_families_read_changes_nothing(family):
    """Fields that only other config classes declare, even if shared code reads them."""
    own = source.in_source(family) | supported(hf.BY_NAME[family])
    others = {name for other in hf.BY_NAME.values() for name in other.defaults} - own - hf.INERT
    assert others
    config = configs.tiny(family)
    for name in others:
        for value in (None, True, 3, "x"):
            assert hf.read_config(config | {name: value}) == hf.read_config(config)
            assert hf.unread_fields(config | {name: value}) == [name]


@configs.every_family
def test_defaults_are_those_of_the_config_class(family):
    cls, declared = source.config_class(family), hf.BY_NAME[family].defaults
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    undeclared = {"head_dim"} if family in ("qwen2", "olmo2", "olmo3") else set()
    assert {n: fields[n] for n in declared.keys() - undeclared} == {
        n: declared[n] for n in declared.keys() - undeclared
    }
    assert not undeclared & fields.keys()


LETTERS = {
    "full_attention": "G",
    "attention": "G",
    "sliding_attention": "L",
    "linear_attention": "D",
}


def network_of(config: Any) -> dict[str, Any]:
    """Return the network that a transformers config object describes, in terms of `ModelConfig`."""
    if config.model_type == "nemotron_h":
        return hybrid_of(config)
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        kinds = ["full_attention" if window is None else "sliding_attention"]
        kinds *= config.num_hidden_layers
    letters = tuple(LETTERS[kind] for kind in kinds)
    rope = config.rope_parameters
    wide, near = rope.get("full_attention", rope), rope.get("sliding_attention", rope)
    gemma = config.model_type == "gemma3_text"
    width = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", width)
    delta = {ours: getattr(config, theirs) for theirs, ours in DELTA.items() if "D" in letters}
    activation = config.hidden_activation if gemma else config.hidden_act
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "ffn_size": config.intermediate_size,
        "activation": ACTIVATIONS[activation],
        "norm_epsilon": config.rms_norm_eps,
        "letters": letters,
        "sliding_window": window if "L" in letters else 0,
        "tie_embeddings": config.tie_word_embeddings,
        "scale": config.query_pre_attn_scalar if gemma else head_dim,
        "softcap": (config.final_logit_softcapping or 0.0) if gemma else 0.0,
        "thetas": (wide["rope_theta"], near["rope_theta"]),
        "rotary": int(head_dim * wide.get("partial_rotary_factor", 1.0)),
        **delta,
    }


def hybrid_of(config: Any) -> dict[str, Any]:
    """Return `network_of` a hybrid with Mamba-2."""
    letters = tuple(config.hybrid_override_pattern)
    assert "E" not in letters
    low, high = config.time_step_limit
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_layers": len(letters),
        "num_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "ffn_size": config.intermediate_size,
        "activation": ACTIVATIONS[config.mlp_hidden_act],
        "norm_epsilon": config.layer_norm_epsilon,
        "letters": letters,
        "sliding_window": config.sliding_window or 0,
        "tie_embeddings": config.tie_word_embeddings,
        "scale": config.head_dim,
        "softcap": 0.0,
        "thetas": (1e4, 1e4),
        "rotary": config.head_dim,
        "mamba_heads": config.mamba_num_heads,
        "mamba_head_dim": config.mamba_head_dim,
        "mamba_groups": config.n_groups,
        "mamba_state": config.ssm_state_size,
        "mamba_taps": config.conv_kernel,
        "mamba_step_min": low,
        "mamba_step_max": 0.0 if high == math.inf else high,
    }


def our_network(model: ModelConfig) -> dict[str, Any]:
    fields = {name: getattr(model, name) for name in network_names()}
    if "M" in model.letters:
        fields |= {name: getattr(model, name) for name in vars(model) if name.startswith("mamba_")}
    if "D" in model.letters:
        fields |= {name: getattr(model, name) for name in DELTA.values()}
    return fields | {
        "scale": model.query_pre_attn_scalar or model.head_dim,
        "softcap": model.logit_softcap,
        "thetas": (model.rope.theta, model.rope.local_theta or model.rope.theta),
        "rotary": model.rope.rotary_dim(model.head_dim),
    }


def network_names() -> list[str]:
    return [
        *("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
        *("ffn_size", "activation", "norm_epsilon", "letters", "sliding_window"),
        "tie_embeddings",
    ]


def assert_same_reading(config: hf.Json) -> None:
    """Assert that both read the same network or both refuse it: transformers at the latest when it
    builds or runs the model."""
    expected, actual = reading(lambda: network_of(configs.their_config(config))), ours(config)
    if actual == expected:
        return
    assert isinstance(actual, hf.Unsupported)
    assert "\n" not in str(actual)
    if not isinstance(expected, Exception):
        tokens = np.arange(3, 15)[None]
        compute = lambda: theirs.their_logits(configs.their_model(config), tokens)
        assert isinstance(reading(compute), Exception), (config, actual)


def ours(config: hf.Json) -> Any:
    return reading(lambda: our_network(hf.read_config(config)))


def reading(read: Callable[[], Any]) -> Any:
    """Return the network that `read` returns, or the error that it raises."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001  strict dataclasses of transformers raise their own types
        return error


def read_fields(family: str) -> list[str]:
    return sorted(supported(hf.BY_NAME[family]) - {"original_max_position_embeddings"})


@configs.every_family
def test_a_field_that_is_missing_or_null_means_what_it_means_to_transformers(family):
    plain = configs.tiny(family)
    assert our_network(hf.read_config(plain)) == network_of(configs.their_config(plain))
    refused = []
    for name in read_fields(family):
        missing = {field: x for field, x in plain.items() if field != name}
        assert_same_reading(missing)
        assert_same_reading(plain | {name: None})
        if isinstance(ours(plain | {name: None}), hf.Unsupported):
            refused.append(name)
    assert "hidden_size" in refused
    assert "tie_word_embeddings" in refused


@configs.every_family
def test_a_config_with_only_a_model_type_is_the_default_one(family):
    assert_same_reading({"model_type": family})


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {"use_sliding_window": False}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 0}),
        ("qwen2", {"sliding_window": None}),
        ("qwen2", {"max_window_layers": 0}),
        ("qwen2", {"max_window_layers": 9}),
        ("qwen2", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 4}),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
        ("qwen3", {"layer_types": ["attention"] * 4}),
        ("qwen3", {"layer_types": ["full_attention"] * 3}),
        ("mistral", {"sliding_window": 0}),
        ("mistral", {"sliding_window": None}),
        ("olmo3", {"sliding_window": 0}),
        ("olmo3", {"layer_types": ["full_attention"] * 4, "sliding_window": None}),
        ("gemma3_text", {"sliding_window_pattern": 2}),
        ("gemma3_text", {"sliding_window_pattern": None}),
        ("gemma3_text", {"sliding_window_pattern": 0}),
        ("gemma3_text", {"sliding_window_pattern": None, "layer_types": ["full_attention"] * 4}),
        ("gemma3_text", {"rope_local_base_freq": 5.0}),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}),
        ("olmo3", {"rope_parameters": {"sliding_attention": {"rope_theta": 7.0}}}),
        ("llama", {"rope_parameters": {}, "rope_scaling": {}}),
        ("llama", {"rope_theta": None, "rope_parameters": {"rope_theta": 7.0}}),
        ("llama", {"rope_theta": 7.0, "rope_parameters": {"rope_type": "default"}}),
        ("llama", {"rope_parameters": {"rope_theta": None}}),
        ("qwen3", {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}}),
        ("llama", {"layer_types": ["full_attention"] * 4}),
        ("qwen3_5_text", {"full_attention_interval": 2}),
        ("qwen3_5_text", {"full_attention_interval": 0}),
        ("qwen3_5_text", {"layer_types": ["full_attention", "linear_attention"] * 2}),
        ("qwen3_5_text", {"layer_types": ["full_attention"] * 4}),
        ("qwen3_5_text", {"layer_types": ["linear_attention"] * 3}),
        ("qwen3_5_text", {"layer_types": ["sliding_attention", "linear_attention"] * 2}),
        ("qwen3_5_text", {"partial_rotary_factor": 0.5}),
        ("qwen3_5_text", {"partial_rotary_factor": None}),
        ("qwen3_5_text", {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 7.0}}),
        ("qwen3_5_text", {"rope_parameters": {"partial_rotary_factor": None, "rope_theta": 7.0}}),
        ("qwen3_5_text", {"linear_num_value_heads": 3}),
        ("llama", {"num_attention_heads": 3, "num_key_value_heads": None, "head_dim": None}),
    ],
)
def test_switches_and_forms_are_read_as_transformers_reads_them(family, changes):
    config = configs.tiny(family, **changes)
    if "rope_theta" not in changes and "rope_parameters" in changes:
        del config["rope_theta"]
    assert_same_reading(config)


VALUES: dict[str, list[Any]] = {
    "attention_dropout": [0.0, 0, None],
    "final_logit_softcapping": [None, 5.0],
    "head_dim": [8, 16, None],
    "hidden_size": [64, 48, None],
    "layer_types": [None, ["full_attention"] * 3, []],
    "max_position_embeddings": [128, 512, None],
    "max_window_layers": [0, 2, 9, None],
    "mlp_bias": [False, None],
    "num_attention_heads": [8, 4, 3, None],
    "num_key_value_heads": [1, 2, 8, 3, 0, -1, "4", None],
    "query_pre_attn_scalar": [16, 24, None],
    "rms_norm_eps": [1e-6, 1e-3, None],
    "rope_local_base_freq": [5.0],
    "rope_theta": [1e4, 10000, 7.0, None],
    "sliding_window_pattern": [1, 2, 3, 0, None],
    "tie_word_embeddings": [True, False, None],
    "use_sliding_window": [True, False, None, 1],
}


@configs.every_family
@pytest.mark.parametrize("seed", range(3))
def test_fields_together_are_read_as_transformers_reads_them(family, seed):
    draw, known = random.Random(f"{family} {seed}"), hf.BY_NAME[family]
    # What contradicts another field is refused here, and ignored there.
    told_twice = {*known.same, *({"layer_types"} if known.aliases else ())}
    for _ in range(15):
        config = configs.tiny(family)
        for name in draw.sample(sorted(VALUES.keys() - told_twice), 3):
            config[name] = copy.deepcopy(draw.choice(VALUES[name]))
        if draw.random() < 0.5:
            del config["rope_theta"]
        assert_same_reading(config)
