"""Copies parameters of Hugging Face Llama-shaped decoders into our parameter tree, for tests."""

import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params

# Where a block's parameter is found there. Their kernels are [outputs, inputs], ours the reverse.
KERNELS = {
    "attention/q": "self_attn.q_proj",
    "attention/k": "self_attn.k_proj",
    "attention/v": "self_attn.v_proj",
    "attention/o": "self_attn.o_proj",
    "ffn/gate": "mlp.gate_proj",
    "ffn/up": "mlp.up_proj",
    "ffn/down": "mlp.down_proj",
}
SCALES = {
    "attention/q_norm": "self_attn.q_norm",
    "attention/k_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def parameters(model, config: ModelConfig) -> Params:
    """Our parameters of a transformers model; all of its parameters must find a place."""
    left = {name: x.detach().numpy().copy() for name, x in model.named_parameters()}
    params: Params = {}

    def put(path: str, value: np.ndarray) -> None:
        *folders, name = path.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = jnp.asarray(value)

    def stacked(name: str) -> np.ndarray:
        return np.stack([left.pop(f"model.layers.{i}.{name}") for i in range(config.num_layers)])

    for ours, theirs in KERNELS.items():
        put(f"blocks/{ours}/kernel", stacked(f"{theirs}.weight").transpose(0, 2, 1))
    for ours, theirs in SCALES.items():
        if config.qk_norm or "attention/" not in ours:
            put(f"blocks/{ours}/scale", stacked(f"{theirs}.weight"))
    put("embedding", left.pop("model.embed_tokens.weight"))
    put("norm/scale", left.pop("model.norm.weight"))
    if not config.tie_embeddings:
        put("head/kernel", left.pop("lm_head.weight").T)
    assert not left, f"not copied: {sorted(left)}"
    return params
