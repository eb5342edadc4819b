"""Tiny random models of transformers for every family and every optional part of a family.

Their matrices are larger and their norms further from one than transformers initializes them, so
that attention is far from uniform and a wrong mask, position, norm or scale shows.
"""

import functools
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from models import hf
from models.config import ModelConfig
from models.transformer import Params

BASE = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
# Name -> class, and fields of its config besides `BASE`.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 16, "rope_theta": 1e6, "rope_scaling": YARN}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "llama": ("Llama", {"num_key_value_heads": 6}),
    "llama3": ("Llama", {"head_dim": 16, "rope_theta": 5e5, "rope_scaling": LLAMA3}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "olmo2": ("Olmo2", {"rms_norm_eps": 1e-5}),
    "olmo3": (
        "Olmo3",
        {
            "sliding_window": 7,
            "rope_theta": 5e5,
            "rope_scaling": YARN | {"attention_factor": 1.2},
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 16,
            "num_hidden_layers": 7,
            "sliding_window": 7,
            "query_pre_attn_scalar": 24,
            "final_logit_softcapping": 5.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "qwen3_5": (
        "Qwen3_5Text",
        {
            "head_dim": 16,
            "rope_theta": 1e6,
            "linear_num_value_heads": 4,
            "linear_value_head_dim": 12,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
        },
    ),
    # transformers clamps steps from below by time_step_min, whatever time_step_limit is.
    "nemotron_h": (
        "NemotronH",
        {
            "head_dim": 16,
            "layer_norm_epsilon": 1e-5,
            "layers_block_type": ["mamba", "mlp", "mamba", "attention", "mlp", "mamba"],
            "mamba_num_heads": 8,
            "mamba_head_dim": 12,
            "n_groups": 2,
            "ssm_state_size": 16,
            "chunk_size": 16,
            "time_step_min": 1e-9,
        },
    ),
}

# One model of each family with its distinguishing features; the others are for slow tests.
FIRST = ("qwen3", "qwen2-window", "llama3", "mistral", "olmo2", "olmo3", "gemma3")
every_model = pytest.mark.parametrize(
    "name",
    [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in sorted(MODELS)],
)


@functools.cache
def their_model(name: str) -> Any:
    """Return a random transformers model of `MODELS` in float32; skip the test without torch."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, fields = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**BASE | fields, attn_implementation="eager")
    return randomized(transformers.AutoModelForCausalLM.from_config(config))


def randomized(model: Any) -> Any:
    """Replace the weights of a model by larger random ones, and set it to evaluation mode."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    around_zero = model.config.model_type in ("gemma3_text", "qwen3_5", "qwen3_5_text")
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            else:
                around_one = not around_zero or path.endswith("linear_attn.norm.weight")
                around_one &= not path.endswith(("bias", "A_log"))
                parameter.uniform_(-0.5, 0.5).add_(around_one)
    return model.eval()


def config_json(model: Any) -> hf.Json:
    """Return the config.json that transformers writes."""
    return json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}


def parameters(model: Any, config: ModelConfig) -> Params:
    """Convert the weights of a transformers model to our parameters."""
    family = hf.family_of(config_json(model))
    state = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    leaves: dict[str, Any] = {}
    for tensor in hf.as_in(state, hf.tensors(family, config)):
        value = jnp.asarray(tensor.ours(tensor.part(state[tensor.name])).copy())
        if tensor.layer is not None:
            leaves.setdefault(tensor.path, []).append(value)
        elif not tensor.copy_of:
            leaves[tensor.path] = value
    params: Params = {}
    for path, value in leaves.items():
        *folders, last = path.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = jnp.stack(value) if isinstance(value, list) else value
    return params


def their_logits(model: Any, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the logits [B, S, V] of ids [B, S]; `mask` [B, S] is 0 on padding."""
    torch = pytest.importorskip("torch")
    attention_mask = None if mask is None else torch.tensor(mask)
    with torch.no_grad():
        return model(torch.tensor(tokens), attention_mask=attention_mask).logits.float().numpy()
