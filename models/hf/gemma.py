"""The text part of Gemma 3."""

from models.config import ModelConfig
from models.hf.family import AROUND, LOCAL, Family
from models.hf.fields import COUNT, NUMBER, Fields, Json
from models.hf.local_layers import LayerPattern

GEMMA3 = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
}


def _read_own(f: Fields, values: Json) -> Json:
    scalar = f.take("query_pre_attn_scalar", COUNT)
    return {
        "query_pre_attn_scalar": 0.0 if scalar == values["head_dim"] else float(scalar),
        "logit_softcap": float(f.take("final_logit_softcapping", NUMBER) or 0.0),
    }


def _write_own(model: ModelConfig) -> Json:
    return {
        "query_pre_attn_scalar": int(model.query_pre_attn_scalar) or model.head_dim,
        "final_logit_softcapping": model.logit_softcap or None,
    }


FAMILIES = (
    Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        {
            "norm": "around",
            "qk_norm": "head",
            "zero_centered_norm": True,
            "scale_embedding": True,
        },
        AROUND,
        GEMMA3,
        nullable=(
            *LOCAL,
            "attention_dropout",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention",
        ),
        layers=LayerPattern(),
        read_own=_read_own,
        write_own=_write_own,
        default_theta=1e6,
        local_rope=True,
        local_theta_field="rope_local_base_freq",
        default_local_theta=1e4,
        whole_heads=True,
        more=("rope_local_base_freq", "sliding_window_pattern"),
    ),
)
