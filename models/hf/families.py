"""The families, each a declaration: what its members share, and where their parameters are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig
from models.hf.weights import Tensor, Transposed, Weight, all_tensors


@dataclasses.dataclass(frozen=True)
class Family:
    """Models of one architecture.

    Attributes:
      name: `model_type` in config.json.
      architecture: the class that transformers gives a checkpoint to.
      shared: the fields of `ModelConfig` that are the same in all members.
      weights: where its parameters are; those that a member does not have are passed over.
      layers: how config.json tells local layers from global ones: "none" (it cannot), "all" (a
        `sliding_window` means all layers), "types" (`layer_types`), "pattern" (these or
        `sliding_window_pattern`), or "switch" (these or `use_sliding_window`).
      activation_field: name of the activation's field.
      tied_by_default: whether logits are read with the embedding if config.json does not say.
      head_dim: width of a head if config.json does not say; 0 = hidden_size / heads.
      default_theta: base of the rotary frequencies if config.json does not say.
      local_rope: local layers have rotary frequencies of their own, never stretched.
      local_theta_field: name of the field with their base, in the form of old readers; "" where it
        is that of all layers.
      default_local_theta: that base if config.json does not say.
      extras: fields of config.json that few families have: "query_pre_attn_scalar" and
        "final_logit_softcapping".
      fixed: fields of `FIXED` that its config.json has, to be written too.
    """

    name: str
    architecture: str
    shared: Mapping[str, Any]
    weights: tuple[Weight, ...]
    layers: str = "none"
    activation_field: str = "hidden_act"
    tied_by_default: bool = False
    head_dim: int = 0
    default_theta: float = 1e4
    local_rope: bool = False
    local_theta_field: str = ""
    default_local_theta: float = 0.0
    extras: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ("attention_bias", "attention_dropout")


TRANSPOSED = (Transposed(),)
WEIGHTS = (
    Weight("embedding", "model.embed_tokens.weight"),
    Weight("blocks/attention/q/kernel", "model.layers.*.self_attn.q_proj.weight", TRANSPOSED),
    Weight("blocks/attention/q/bias", "model.layers.*.self_attn.q_proj.bias"),
    Weight("blocks/attention/k/kernel", "model.layers.*.self_attn.k_proj.weight", TRANSPOSED),
    Weight("blocks/attention/k/bias", "model.layers.*.self_attn.k_proj.bias"),
    Weight("blocks/attention/v/kernel", "model.layers.*.self_attn.v_proj.weight", TRANSPOSED),
    Weight("blocks/attention/v/bias", "model.layers.*.self_attn.v_proj.bias"),
    Weight("blocks/attention/o/kernel", "model.layers.*.self_attn.o_proj.weight", TRANSPOSED),
    Weight("blocks/attention/q_norm/scale", "model.layers.*.self_attn.q_norm.weight"),
    Weight("blocks/attention/k_norm/scale", "model.layers.*.self_attn.k_norm.weight"),
    Weight("blocks/ffn/gate/kernel", "model.layers.*.mlp.gate_proj.weight", TRANSPOSED),
    Weight("blocks/ffn/up/kernel", "model.layers.*.mlp.up_proj.weight", TRANSPOSED),
    Weight("blocks/ffn/down/kernel", "model.layers.*.mlp.down_proj.weight", TRANSPOSED),
    Weight("norm/scale", "model.norm.weight"),
    Weight("head/kernel", "lm_head.weight", TRANSPOSED),
)
# The same name, `post_attention_layernorm`, is the feed-forward's norm in the first and attention's
# in the others.
BEFORE = (
    *WEIGHTS,
    Weight("blocks/attention_norm/scale", "model.layers.*.input_layernorm.weight"),
    Weight("blocks/ffn_norm/scale", "model.layers.*.post_attention_layernorm.weight"),
)
AFTER = (
    *WEIGHTS,
    Weight("blocks/attention_post_norm/scale", "model.layers.*.post_attention_layernorm.weight"),
    Weight("blocks/ffn_post_norm/scale", "model.layers.*.post_feedforward_layernorm.weight"),
)
AROUND = (
    *AFTER,
    Weight("blocks/attention_norm/scale", "model.layers.*.input_layernorm.weight"),
    Weight("blocks/ffn_norm/scale", "model.layers.*.pre_feedforward_layernorm.weight"),
)

NO_BIAS = ("attention_dropout",)  # their attention knows no field for one
FAMILIES = (
    Family("qwen3", "Qwen3ForCausalLM", {"qk_norm": "head"}, BEFORE, "switch", head_dim=128),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        {"qk_norm": "none", "qkv_bias": True},
        BEFORE,
        "switch",
        fixed=NO_BIAS,
    ),
    Family(
        "llama",
        "LlamaForCausalLM",
        {"qk_norm": "none"},
        BEFORE,
        fixed=("attention_bias", "attention_dropout", "mlp_bias"),
    ),
    Family("mistral", "MistralForCausalLM", {"qk_norm": "none"}, BEFORE, "all", fixed=NO_BIAS),
    Family("olmo2", "Olmo2ForCausalLM", {"norm": "after", "qk_norm": "all_heads"}, AFTER),
    Family(
        "olmo3",
        "Olmo3ForCausalLM",
        {"norm": "after", "qk_norm": "all_heads"},
        AFTER,
        "types",
        default_theta=5e5,
        local_rope=True,
    ),
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
        "pattern",
        activation_field="hidden_activation",
        tied_by_default=True,
        head_dim=256,
        default_theta=1e6,
        local_rope=True,
        local_theta_field="rope_local_base_freq",
        default_local_theta=1e4,
        extras=("query_pre_attn_scalar", "final_logit_softcapping"),
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}


def tensors(family: Family, model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint of this network, in the order of the layers."""
    return all_tensors(family.weights, model)
