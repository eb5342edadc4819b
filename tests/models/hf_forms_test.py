"""Forms of config.json: computed as in transformers, refused by name, or kept without effect."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from models import hf
from models.hf.families import fixed
from models.hf.fields import FIXED
from models.transformer import bind
from models.tree import Trunk, forward
from tests.support import hf as theirs
from tests.support import tiny as compiled
from tests.support.hf_configs import their_config, their_model, tiny


@compiled.jit
def all_logits(model, trunk):
    return model.logits(forward(model, trunk))


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
        ("qwen3_5_text", {"rope_scaling": YARN, "partial_rotary_factor": 0.5}),
        ("qwen3_5_text", {"rope_parameters": {"mrope_section": [1, 1, 0], "rope_theta": 3e4}}),
        ("olmo3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        ("gemma3_text", {"rope_local_base_freq": 50.0, "sliding_window_pattern": 2}),
        ("qwen2", {"attention_bias": True, "mlp_dropout": 0.5, "layer_norm_eps": 1.0}),
    ],
)
def test_logits_of_forms_are_those_of_transformers(family, changes):
    config_json = tiny(family, **changes)
    model = their_model(config_json)
    config = hf.read_config(config_json)
    tokens = np.random.default_rng(0).integers(3, 90, (2, 60))
    position = np.broadcast_to(np.arange(60), tokens.shape)
    trunk = Trunk(tokens, np.ones_like(position), position)
    logits = all_logits(bind(config, theirs.parameters(model, config)), trunk)
    expected = theirs.their_logits(model, tokens)
    assert np.std(expected) > 0.5
    assert np.abs(logits - expected).max() <= 1e-5 * np.ptp(expected)


# Configs that are refused.


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_field_that_is_supported_at_one_value_is_refused_at_others_by_name(name):
    allowed = FIXED[name]
    other = {bool: not allowed[0], float: 0.5}.get(type(allowed[0]), {"a": 1})
    for family in hf.BY_NAME:
        for value in allowed:
            if value is not None:
                hf.read_config(tiny(family, **{name: value}))
        known = hf.BY_NAME[family]
        if name in (*known.inert, *known.more):
            continue
        if name not in fixed(known):
            assert hf.unread_fields(tiny(family, **{name: other})) == [name]
            continue
        with pytest.raises(hf.Unsupported, match=f"^{name}={other!r} is not supported, only"[:60]):
            hf.read_config(tiny(family, **{name: copy.deepcopy(other)}))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
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
        ("gemma3_text", {"rope_scaling": {"type": "linear", "factor": 8.0}}, "not type"),
        ("olmo3", {"rope_scaling": YARN}, "transformers reads rope_type, not type"),
        ("qwen3", {"rope_parameters": {"full_attention": None}}, "full_attention=None"),
        (
            "llama",
            {"rope_scaling": YARN, "original_max_position_embeddings": None},
            "original_max_position_embeddings=None",
        ),
        ("gemma3_text", {"query_pre_attn_scalar": 24.5}, "query_pre_attn_scalar=24.5"),
        ("gemma3_text", {"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "not factor"),
        ("mistral", {"sliding_window": 0}, "sliding_window=0 leaves local layers nothing to see"),
        ("phi3", {}, "model_type='phi3' is not supported"),
        ("ministral3", {}, "model_type='ministral3'"),
        (None, {}, "it lacks model_type"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures="),
    ],
)
def test_what_would_be_computed_differently_is_refused(family, changes, message):
    with pytest.raises(hf.Unsupported, match=message) as caught:
        hf.read_config(tiny(family, **changes))
    assert "\n" not in str(caught.value)


# Fields without effect.

# The field names are those of published config.json files; the values are made up.
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
def test_fields_without_effect_are_accepted_reported_and_kept(form):
    family, extra, unread = FORMS[form]
    plain, config_json = tiny(family), tiny(family, **extra)
    scaled = {"rope_scaling": {"type": "linear", "factor": 1.0}} if form == "scaled" else {}
    assert hf.read_config(config_json) == hf.read_config(plain | scaled)
    assert hf.unread_fields(plain) == []
    assert hf.unread_fields(config_json) == sorted(unread)
    # Describing the same network changes nothing, a larger vocabulary only vocab_size.
    model = hf.read_config(config_json)
    assert hf.replaced(config_json, model) == config_json
    larger = dataclasses.replace(model, vocab_size=128)
    assert hf.replaced(config_json, larger) == config_json | {"vocab_size": 128}
    json.dumps(hf.replaced(config_json, larger))


def test_another_window_or_base_replaces_all_its_fields():
    config_json = tiny("qwen2", internal_version="v2")
    model = hf.read_config(config_json)
    for changes in (
        {"layer_pattern": "G", "sliding_window": 0},
        {"rope": dataclasses.replace(model.rope, theta=7.0)},
    ):
        other = dataclasses.replace(model, **changes)
        written = hf.replaced(config_json, other)
        assert hf.read_config(written) == other
        assert written["internal_version"] == "v2"
    modern = {name: x for name, x in config_json.items() if name != "rope_theta"}
    modern["rope_parameters"] = {"rope_type": "default", "rope_theta": 9.0}
    other = dataclasses.replace(hf.read_config(modern), rope=dataclasses.replace(model.rope))
    assert hf.read_config(hf.replaced(modern, other)) == other


def test_a_whole_number_may_be_written_as_a_float_and_is_exported_as_an_integer():
    config_json = tiny("gemma3_text", query_pre_attn_scalar=24.0)
    model = hf.read_config(config_json)
    assert model == hf.read_config(tiny("gemma3_text"))
    written = hf.replaced(config_json, model)
    assert type(written["query_pre_attn_scalar"]) is int
    their_config(written)
