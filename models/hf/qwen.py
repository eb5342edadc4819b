"""Qwen2, Qwen2.5 and Qwen3."""

from models.hf.family import BEFORE, HEADS, LLAMA, LOCAL, Family
from models.hf.local_layers import SwitchedLayers

QWEN2 = LLAMA | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
QWEN3 = QWEN2 | {"head_dim": 128, "attention_bias": False}

FAMILIES = (
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        {"qk_norm": "head"},
        BEFORE,
        QWEN3,
        nullable=(HEADS, *LOCAL),
        layers=SwitchedLayers(),
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        {"qk_norm": "none", "qkv_bias": True},
        BEFORE,
        QWEN2,
        nullable=(HEADS, *LOCAL),
        layers=SwitchedLayers(),
    ),
)
