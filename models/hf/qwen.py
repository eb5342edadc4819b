"""Qwen2, Qwen2.5, Qwen3, and the text part of Qwen3.5."""

from models.config import ModelConfig
from models.hf.family import BEFORE, HEADS, LLAMA, LOCAL, TRANSPOSED, Family
from models.hf.fields import COUNT, Fields, Json, Unsupported
from models.hf.local_layers import DeltaLayers, SwitchedLayers
from models.hf.weights import Depthwise, Weight

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

QWEN3_5 = {
    "vocab_size": 248320,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "layer_types": None,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
# Field of config.json -> field of `ModelConfig`.
DELTA = {
    "linear_num_value_heads": "delta_heads",
    "linear_value_head_dim": "delta_head_dim",
    "linear_num_key_heads": "delta_key_heads",
    "linear_key_head_dim": "delta_key_dim",
    "linear_conv_kernel_dim": "delta_taps",
}


def _read_delta(f: Fields, values: Json) -> Json:
    if values["activation"] != "silu":  # transformers also applies it after the convolution
        raise Unsupported(f"hidden_act={f.get('hidden_act')!r} is not supported in qwen3_5_text")
    return {ours: f.take(theirs, COUNT) for theirs, ours in DELTA.items()}


def _write_delta(model: ModelConfig) -> Json:
    return {theirs: getattr(model, ours) for theirs, ours in DELTA.items()}


_OF_LAYER = "model.layers.*.linear_attn"
# Weights with the same name are parts of one tensor, in their order.
DELTA_WEIGHTS = (
    *BEFORE,
    Weight("blocks/delta_norm/scale", "model.layers.*.input_layernorm.weight"),
    *(
        Weight(f"blocks/delta/{name}/kernel", f"{_OF_LAYER}.in_proj_qkv.weight", TRANSPOSED)
        for name in ("q", "k", "v")
    ),
    *(
        Weight(f"blocks/delta/{name}_taps/kernel", f"{_OF_LAYER}.conv1d.weight", (Depthwise(),))
        for name in ("q", "k", "v")
    ),
    Weight("blocks/delta/z/kernel", f"{_OF_LAYER}.in_proj_z.weight", TRANSPOSED),
    Weight("blocks/delta/strength/kernel", f"{_OF_LAYER}.in_proj_b.weight", TRANSPOSED),
    Weight("blocks/delta/step/kernel", f"{_OF_LAYER}.in_proj_a.weight", TRANSPOSED),
    Weight("blocks/delta/step_bias/offset", f"{_OF_LAYER}.dt_bias"),
    Weight("blocks/delta/log_rate/offset", f"{_OF_LAYER}.A_log"),
    Weight("blocks/delta/norm/scale", f"{_OF_LAYER}.norm.weight"),
    Weight("blocks/delta/out/kernel", f"{_OF_LAYER}.out_proj.weight", TRANSPOSED),
)

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
    Family(
        "qwen3_5_text",
        "Qwen3_5ForCausalLM",
        {"qk_norm": "head", "zero_centered_norm": True, "attention_gate": True},
        DELTA_WEIGHTS,
        QWEN3_5,
        nullable=("layer_types",),
        layers=DeltaLayers(),
        read_own=_read_delta,
        write_own=_write_delta,
        default_partial_rotary=0.25,
        # Three coordinates of positions, which are equal in a text.
        inert_rope=("mrope_section", "mrope_interleaved"),
        other_prefix=("model.", "model.language_model."),
        more=("full_attention_interval", "partial_rotary_factor"),
        # Fields of the vision tower, which shares the file of its classes.
        inert=(
            *("depth", "in_channels", "num_position_embeddings", "out_hidden_size"),
            *("spatial_merge_size", "temporal_patch_size", "video_token_id"),
        ),
    ),
)
