"""OLMo 2 and OLMo 3."""

from models.hf.family import AFTER, HEADS, LLAMA, LOCAL, Family
from models.hf.local_layers import LayerTypes

OLMO2 = LLAMA | {"vocab_size": 50304, "rms_norm_eps": 1e-5, "attention_bias": False}
OLMO3 = OLMO2 | {"sliding_window": 4096, "layer_types": None}

FAMILIES = (
    Family(
        "olmo2",
        "Olmo2ForCausalLM",
        {"norm": "after", "qk_norm": "all_heads"},
        AFTER,
        OLMO2,
        nullable=(HEADS,),
    ),
    Family(
        "olmo3",
        "Olmo3ForCausalLM",
        {"norm": "after", "qk_norm": "all_heads"},
        AFTER,
        OLMO3,
        nullable=(HEADS, *LOCAL),
        layers=LayerTypes(),
        default_theta=5e5,
        local_rope=True,
        default_local_theta=5e5,
    ),
)
