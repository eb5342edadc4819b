"""Tiny config.json files of every family, and the models that transformers builds from them."""

import copy
from typing import Any

import pytest

from models import hf
from tests.support import hf as theirs
from tests.support import transformers_source as source

every_family = pytest.mark.parametrize("family", sorted(hf.BY_NAME))
# Fields of the tiny config of each family besides `BASE`.
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
    "qwen3_5_text": {
        "head_dim": 16,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 12,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
    },
    "nemotron_h": {
        "head_dim": 16,
        "hybrid_override_pattern": "M-M*",
        "mamba_num_heads": 8,
        "mamba_head_dim": 12,
        "n_groups": 2,
        "ssm_state_size": 16,
        "time_step_min": 1e-9,
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
    """Return a config.json in the format before rope_parameters."""
    return {"model_type": family} | BASE | OWN.get(family, {}) | changes


def their_config(content: hf.Json) -> Any:
    config = source.config_class(content["model_type"])(**copy.deepcopy(content))
    config._attn_implementation = "eager"
    return config


def their_model(content: hf.Json) -> Any:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return theirs.randomized(transformers.AutoModelForCausalLM.from_config(their_config(content)))
