"""Llama and Mistral."""

from models.hf.family import BEFORE, HEADS, LLAMA, Family
from models.hf.local_layers import AllLayers

MISTRAL = LLAMA | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}

FAMILIES = (
    Family(
        "llama",
        "LlamaForCausalLM",
        {"qk_norm": "none"},
        BEFORE,
        LLAMA | {"attention_bias": False, "mlp_bias": False},
        nullable=(HEADS, "head_dim", "attention_dropout"),
        whole_heads=True,
    ),
    Family(
        "mistral",
        "MistralForCausalLM",
        {"qk_norm": "none"},
        BEFORE,
        MISTRAL,
        nullable=("head_dim", "sliding_window"),
        layers=AllLayers(),
    ),
)
