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
      defaults: the fields of its config class that make the network, and what each is where
        config.json does not have it; None = it follows from others.
      nullable: those of them that may be null; null then means what None means above, or that
        there is none.
      layers: how config.json tells local layers from global ones: "none" (it cannot), "all" (a
        `sliding_window` means all layers), "types" (`layer_types`), "pattern" (these or
        `sliding_window_pattern`), or "switch" (these or `use_sliding_window`).
      default_theta: base of the rotary frequencies if config.json does not say.
      local_rope: local layers have rotary frequencies of their own, never stretched.
      local_theta_field: name of the field with their base, in the form of old readers; "" where
        they know none.
      default_local_theta: that base if config.json does not say.
      whole_heads: its config class wants hidden_size to be a multiple of the number of heads,
        whatever head_dim is.
      more: supported fields that its config class takes without declaring them.
    """

    name: str
    architecture: str
    shared: Mapping[str, Any]
    weights: tuple[Weight, ...]
    defaults: Mapping[str, Any]
    nullable: tuple[str, ...]
    layers: str = "none"
    default_theta: float = 1e4
    local_rope: bool = False
    local_theta_field: str = ""
    default_local_theta: float = 0.0
    whole_heads: bool = False
    more: tuple[str, ...] = ()

    @property
    def activation_field(self) -> str:
        """Name of the activation's field."""
        return next(name for name in ("hidden_act", "hidden_activation") if name in self.defaults)


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

# What the config classes of transformers 5.23 make of fields that are missing.
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
}
MISTRAL = LLAMA | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
OLMO2 = LLAMA | {"vocab_size": 50304, "rms_norm_eps": 1e-5, "attention_bias": False}
OLMO3 = OLMO2 | {"sliding_window": 4096, "layer_types": None}
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

HEADS, LOCAL = "num_key_value_heads", ("sliding_window", "layer_types")
FAMILIES = (
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        {"qk_norm": "head"},
        BEFORE,
        QWEN3,
        nullable=(HEADS, *LOCAL),
        layers="switch",
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        {"qk_norm": "none", "qkv_bias": True},
        BEFORE,
        QWEN2,
        nullable=(HEADS, *LOCAL),
        layers="switch",
    ),
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
        layers="all",
    ),
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
        layers="types",
        default_theta=5e5,
        local_rope=True,
        default_local_theta=5e5,
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
        GEMMA3,
        nullable=(
            *LOCAL,
            "attention_dropout",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention",
        ),
        layers="pattern",
        default_theta=1e6,
        local_rope=True,
        local_theta_field="rope_local_base_freq",
        default_local_theta=1e4,
        whole_heads=True,
        more=("rope_local_base_freq", "sliding_window_pattern"),
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}


def tensors(family: Family, model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint of this network, in the order of the layers."""
    return all_tensors(family.weights, model)
