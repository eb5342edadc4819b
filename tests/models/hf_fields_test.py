"""The fields of config.json are those of transformers: what it reads is supported, refused or
declared to change nothing, and fields that are missing or null mean what they mean there."""

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from models import hf
from models.config import ModelConfig
from models.hf.config import ACTIVATIONS
from models.hf.fields import FIXED, HARMLESS, supported
from models.hf.rope import NEUTRAL, OTHERS, ROPES
from models.transformer import bind
from models.tree import Trunk, forward
from tests import hf as theirs
from tests.models import transformers_source as source

every_family = pytest.mark.parametrize("family", sorted(hf.BY_NAME))
# What the tiny config of each family has besides `BASE`.
OWN: dict[str, hf.Json] = {
    "qwen3": {"head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "mistral": {"sliding_window": 7},
    "olmo3": {"sliding_window": 7},
    "gemma3_text": {
        "sliding_window": 7,
        "sliding_window_pattern": 4,
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
    },
}
BASE = theirs.BASE | {
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 3e4,
}


def tiny(family: str, **changes: Any) -> hf.Json:
    """A config.json as it was before rope_parameters."""
    return {"model_type": family} | BASE | OWN.get(family, {}) | changes


def their_config(given: hf.Json) -> Any:
    config = source.config_class(given["model_type"])(**copy.deepcopy(given))
    config._attn_implementation = "eager"
    return config


def their_model(given: hf.Json) -> Any:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return theirs.randomized(transformers.AutoModelForCausalLM.from_config(their_config(given)))


# What transformers reads is known here.


@every_family
def test_what_the_source_of_transformers_reads_is_declared(family):
    declared = supported(hf.BY_NAME[family]) | FIXED.keys() | hf.INERT
    unknown = source.in_source(family) - declared
    assert not unknown, "support, refuse (FIXED) or declare (HARMLESS) these in models/hf/fields.py"


def test_reads_of_every_form_are_found_in_the_source():
    """One name of each form: an attribute, getattr, hasattr, kwargs.pop, kwargs.get, a text in a
    dict, a declared field, a field of a mixin."""
    llama = {
        *("hidden_size", "head_dim", "original_max_position_embeddings", "rope_theta"),
        *("configuration_files", "mlp_bias", "partial_rotary_factor", "transformers_weights"),
        *("is_causal", "num_local_experts", "quantization_config"),
    }
    assert llama <= source.in_source("llama")
    gemma = {"sliding_window_pattern", "query_pre_attn_scalar", "rope_local_base_freq"}
    assert gemma <= source.in_source("gemma3_text")
    assert not gemma & source.in_source("llama")


@every_family
def test_what_a_run_of_transformers_reads_is_declared(family, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    their_model(tiny(family)).save_pretrained(tmp_path)
    tokens = torch.arange(3, 15)[None]
    with source.in_a_run(family) as read:
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
        model(tokens, labels=tokens).loss.backward()
        model.generate(tokens, do_sample=False, max_new_tokens=2)
    assert "hidden_size" in read
    unknown = read - supported(hf.BY_NAME[family]) - FIXED.keys() - hf.INERT
    assert not unknown, "support, refuse (FIXED) or declare (HARMLESS) these in models/hf/fields.py"


def test_every_field_that_is_declared_harmless_is_read_by_transformers():
    read = frozenset().union(*(source.in_source(family) for family in hf.BY_NAME))
    # The config class itself is found by the first; the others are asked for in a loop over names.
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


# Missing and null.


@every_family
def test_defaults_are_those_of_the_config_class(family):
    cls, declared = source.config_class(family), hf.BY_NAME[family].defaults
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    undeclared = {"head_dim"} if family in ("qwen2", "olmo2", "olmo3") else set()
    assert {n: fields[n] for n in declared.keys() - undeclared} == {
        n: declared[n] for n in declared.keys() - undeclared
    }
    assert not undeclared & fields.keys()


def network_of(config: Any) -> dict[str, Any]:
    """What their config object says of the network, in our words."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        kinds = ["full_attention" if window is None else "sliding_attention"]
        kinds *= config.num_hidden_layers
    local = tuple(kind == "sliding_attention" for kind in kinds)
    rope = config.rope_parameters
    wide, near = rope.get("full_attention", rope), rope.get("sliding_attention", rope)
    width = config.hidden_size // config.num_attention_heads
    head_dim = getattr(config, "head_dim", width)
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
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
        "is_local": local,
        "sliding_window": window if any(local) else 0,
        "tie_embeddings": config.tie_word_embeddings,
        "scale": getattr(config, "query_pre_attn_scalar", head_dim),
        "softcap": getattr(config, "final_logit_softcapping", None) or 0.0,
        "thetas": (wide["rope_theta"], near["rope_theta"]),
    }


def our_network(model: ModelConfig) -> dict[str, Any]:
    found = {name: getattr(model, name) for name in network_names() if hasattr(model, name)}
    return found | {
        "scale": model.query_pre_attn_scalar or model.head_dim,
        "softcap": model.logit_softcap,
        "thetas": (model.rope.theta, model.rope.local_theta or model.rope.theta),
    }


def network_names() -> list[str]:
    return [
        *("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
        *("ffn_size", "activation", "norm_epsilon", "is_local", "sliding_window"),
        "tie_embeddings",
    ]


def assert_same_reading(given: hf.Json) -> None:
    """Both read the same network, or both refuse it: transformers at the latest when the model is
    made or computes."""
    expected, found = reading(lambda: network_of(their_config(given))), ours(given)
    if found == expected:
        return
    assert isinstance(found, hf.Unsupported)
    assert "\n" not in str(found)
    if not isinstance(expected, Exception):
        with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)):
            theirs.their_logits(their_model(given), np.arange(3, 15)[None])


def ours(given: hf.Json) -> Any:
    return reading(lambda: our_network(hf.read_config(given)))


def reading(read: Callable[[], Any]) -> Any:
    """What comes of it: a network, or an error."""
    try:
        return read()
    except Exception as error:  # noqa: BLE001  the strict dataclasses of transformers have their own
        return error


def read_fields(family: str) -> list[str]:
    return sorted(supported(hf.BY_NAME[family]) - {"original_max_position_embeddings"})


@every_family
def test_a_field_that_is_missing_or_null_means_what_it_means_to_transformers(family):
    plain = tiny(family)
    assert our_network(hf.read_config(plain)) == network_of(their_config(plain))
    refused = []
    for name in read_fields(family):
        missing = {field: x for field, x in plain.items() if field != name}
        assert_same_reading(missing)
        assert_same_reading(plain | {name: None})
        if isinstance(ours(plain | {name: None}), hf.Unsupported):
            refused.append(name)
    assert "hidden_size" in refused
    assert "tie_word_embeddings" in refused


@every_family
def test_a_config_of_nothing_but_its_kind_is_the_default_one(family):
    given = {"model_type": family}
    assert our_network(hf.read_config(given)) == network_of(their_config(given))


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
        ("llama", {"num_attention_heads": 3, "num_key_value_heads": None, "head_dim": None}),
    ],
)
def test_switches_and_forms_are_read_as_transformers_reads_them(family, changes):
    given = tiny(family, **changes)
    if "rope_theta" not in changes and "rope_parameters" in changes:
        del given["rope_theta"]
    assert_same_reading(given)


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_scaling": YARN | {"finetuned": True}}),
        ("llama", {"rope_scaling": YARN | {"factor": None}}),
        ("llama", {"rope_scaling": YARN, "original_max_position_embeddings": 16}),
        ("mistral", {"rope_scaling": {"type": "yarn", "factor": 8}, "sliding_window": None}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 4}}),
        ("llama", {"num_key_value_heads": None, "head_dim": None}),
        ("olmo3", {"rope_theta": 50.0}),
        ("gemma3_text", {"rope_local_base_freq": 50.0, "sliding_window_pattern": 2}),
        ("qwen2", {"attention_bias": True, "mlp_dropout": 0.5, "layer_norm_eps": 1.0}),
    ],
)
def test_logits_of_forms_are_those_of_transformers(family, changes):
    given = tiny(family, **changes)
    model = their_model(given)
    config = hf.read_config(given)
    tokens = np.random.default_rng(0).integers(3, 90, (2, 60))
    place = np.broadcast_to(np.arange(60), tokens.shape)
    trunk = Trunk(tokens, np.ones_like(place), place)
    compute = jax.jit(lambda m, t: m.logits(forward(m, t)))
    found = compute(bind(config, theirs.parameters(model, config)), trunk)
    expected = theirs.their_logits(model, tokens)
    assert np.std(expected) > 0.5
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


# What is refused.


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_field_that_is_supported_at_one_value_is_refused_at_others_by_name(name):
    allowed = FIXED[name]
    other = {bool: not allowed[0], float: 0.5}.get(type(allowed[0]), {"a": 1})
    for family in hf.BY_NAME:
        for value in allowed:
            if value is not None:
                hf.read_config(tiny(family, **{name: value}))
        if name in hf.BY_NAME[family].ignored:
            hf.read_config(tiny(family, **{name: other}))
            continue
        with pytest.raises(hf.Unsupported, match=f"^{name}={other!r} is not supported, only"[:60]):
            hf.read_config(tiny(family, **{name: copy.deepcopy(other)}))


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llama", {"is_causal": None}, "is_causal=None"),
        ("llama", {"sliding_window": 5}, "sliding_window=5 is not supported in llama"),
        ("llama", {"layer_types": ["sliding_attention"] * 4}, "layer_types="),
        ("llama", {"attention_bias": None}, "lacks attention_bias, which is null"),
        ("qwen2", {"attention_dropout": None}, "lacks attention_dropout"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
        ("llama", {"rope_scaling": {"factor": 2.0}}, "rope_type='default' with factor=2.0"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 9}}, "beta_fast"),
        ("llama", {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}, "mscale=1.0"),
        ("llama", {"rope_scaling": {"rope_type": None}}, "rope_type=None is not a text"),
        ("gemma3_text", {"query_pre_attn_scalar": 24.5}, "query_pre_attn_scalar=24.5"),
        ("gemma3_text", {"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "but factor"),
        ("mistral", {"sliding_window": 0}, "sliding_window=0 leaves local layers nothing to see"),
        ("phi3", {}, "model_type='phi3' is not supported"),
        ("ministral3", {}, "model_type='ministral3'"),
        (None, {}, "it lacks model_type"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures="),
    ],
)
def test_what_would_be_computed_differently_is_refused(family, changes, said):
    with pytest.raises(hf.Unsupported, match=said) as caught:
        hf.read_config(tiny(family, **changes))
    assert "\n" not in str(caught.value)


# What changes nothing.

# The forms of published config.json files, in which nothing but the names is theirs.
GENERATION = {
    "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1,
    "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "remove_invalid_values": False, "suppress_tokens": None,
    "exponential_decay_length_penalty": None, "begin_suppress_tokens": None,
}  # fmt: skip
OF_TO_DICT = GENERATION | {
    "return_dict": True, "output_hidden_states": False, "output_attentions": False,
    "torchscript": False, "use_bfloat16": False, "tf_legacy_loss": False, "pruned_heads": {},
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
    "cross_attention_hidden_size": None, "add_cross_attention": False,
    "tie_encoder_decoder": False, "finetuning_task": None, "id2label": {"0": "A", "1": "B"},
    "label2id": {"A": 0, "B": 1}, "tokenizer_class": None, "prefix": None, "sep_token_id": None,
    "decoder_start_token_id": None, "task_specific_params": None, "problem_type": None,
    "_name_or_path": "", "torch_dtype": "bfloat16", "transformers_version": "4.42.0",
}  # fmt: skip
FORMS: dict[str, tuple[str, hf.Json, set[str]]] = {
    "exported to the browser": (
        "llama",
        {"transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}}},
        {"transformers.js_config"},
    ),
    "with a version": ("llama", {"internal_version": "v2"}, {"internal_version"}),
    "for another chip": (
        "llama",
        {"sequence_parallel_enabled": False, "move_model_to_device": True},
        {"move_model_to_device", "sequence_parallel_enabled"},
    ),
    "first LLaMA": (
        "llama",
        {"architectures": ["LLaMAForCausalLM"], "max_sequence_length": 2048, "pretraining_tp": 2},
        {"max_sequence_length"},
    ),
    "to_dict": (
        "mistral",
        OF_TO_DICT,
        {
            *GENERATION,
            *("torchscript", "use_bfloat16", "tf_legacy_loss", "pruned_heads", "is_decoder"),
            *("cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder"),
            *("finetuning_task", "tokenizer_class", "prefix", "decoder_start_token_id"),
            "task_specific_params",
        },
    ),
    "of GGUF": (
        "gemma3_text",
        {"_name_or_path": "model.gguf", "unk_token_id": 3, "cache_implementation": "hybrid"},
        {"cache_implementation", "unk_token_id"},
    ),
    "own code": (
        "qwen2",
        {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}, "quantization_config": None},
        set(),
    ),
    "nulls": (
        "qwen3",
        {"loss_type": None, "prefix": None, "rope_scaling": None, "text_config": None},
        {"loss_type", "prefix"},
    ),
    "scaled": (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": 1.0, "finetuned": True}},
        {"rope_scaling.finetuned"},
    ),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_changes_nothing_is_accepted_reported_and_kept(form):
    family, extra, unread = FORMS[form]
    plain, given = tiny(family), tiny(family, **extra)
    scaled = {"rope_scaling": {"type": "linear", "factor": 1.0}} if form == "scaled" else {}
    assert hf.read_config(given) == hf.read_config(plain | scaled)
    assert hf.unread_fields(plain) == []
    assert hf.unread_fields(given) == sorted(unread)
    # The same network, and a grown one: nothing else changes.
    model = hf.read_config(given)
    assert hf.replaced(given, model) == given
    grown = dataclasses.replace(model, vocab_size=128)
    assert hf.replaced(given, grown) == given | {"vocab_size": 128}
    json.dumps(hf.replaced(given, grown))


def test_another_window_or_base_replaces_all_fields_that_say_it():
    given = tiny("qwen2", internal_version="v2")
    model = hf.read_config(given)
    for changes in (
        {"layer_pattern": "G", "sliding_window": 0},
        {"rope": dataclasses.replace(model.rope, theta=7.0)},
    ):
        other = dataclasses.replace(model, **changes)
        written = hf.replaced(given, other)
        assert hf.read_config(written) == other
        assert written["internal_version"] == "v2"
    modern = {name: x for name, x in given.items() if name != "rope_theta"}
    modern["rope_parameters"] = {"rope_type": "default", "rope_theta": 9.0}
    other = dataclasses.replace(hf.read_config(modern), rope=dataclasses.replace(model.rope))
    assert hf.read_config(hf.replaced(modern, other)) == other


def test_a_whole_number_may_be_written_as_a_float_and_is_exported_as_an_integer():
    given = tiny("gemma3_text", query_pre_attn_scalar=24.0)
    model = hf.read_config(given)
    assert model == hf.read_config(tiny("gemma3_text"))
    written = hf.replaced(given, model)
    assert type(written["query_pre_attn_scalar"]) is int
    their_config(written)
