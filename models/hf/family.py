"""The declaration of a model family: what its members share, and the names of their parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from models.config import ModelConfig
from models.hf.fields import Fields, Json
from models.hf.local_layers import NoLocalLayers
from models.hf.weights import Transposed, Weight


@dataclasses.dataclass(frozen=True)
class Family:
    """Models of one architecture.

    Attributes:
      name: `model_type` in config.json.
      architecture: the class with which transformers loads a checkpoint.
      shared: the fields of `ModelConfig` that are the same in all members.
      weights: the map of its parameters; those that a member does not have are skipped.
      defaults: the fields of its config class that define the network, with their values if
        config.json lacks them; None if the value follows from other fields.
      nullable: those of them that may be null; null then means the same as None above, or that
        the member does not have the feature.
      layers: how config.json marks local layers.
      read_own: returns the values of `ModelConfig` that follow from fields of this family alone,
        given the other values.
      write_own: returns those fields for a network.
      default_theta: base of the rotary frequencies if config.json lacks it.
      local_rope: local layers have separate rotary frequencies, which are never scaled.
      local_theta_field: the field with their base for old readers; "" if they have none.
      default_local_theta: that base if config.json lacks it.
      default_partial_rotary: share of the dimensions of a head that are rotated if config.json
        lacks it; None if a head is always rotated as a whole.
      inert_rope: rotary parameters without effect on a text.
      whole_heads: its config class requires hidden_size to be a multiple of the number of heads,
        even if head_dim is set.
      more: supported fields that its config class accepts without declaring them.
      epsilon_field: the field with the epsilon of its norms.
      rotary: whether its attention has rotary positions.
      aliases: other names of fields, which replace them if they are present.
      same: fields that nobody reads, but that must have the value of another one if present.
      inert: fields without effect on its networks, also if they have one in other families.
      other_prefix: a prefix of the names of its tensors, and what is in its place in some files.
    """

    name: str
    architecture: str
    shared: Mapping[str, Any]
    weights: tuple[Weight, ...]
    defaults: Mapping[str, Any]
    nullable: tuple[str, ...]
    layers: NoLocalLayers = NoLocalLayers()
    read_own: Callable[[Fields, Json], Json] = lambda f, values: {}
    write_own: Callable[[ModelConfig], Json] = lambda model: {}
    default_theta: float = 1e4
    local_rope: bool = False
    local_theta_field: str = ""
    default_local_theta: float = 0.0
    default_partial_rotary: float | None = None
    inert_rope: tuple[str, ...] = ()
    whole_heads: bool = False
    more: tuple[str, ...] = ()
    epsilon_field: str = "rms_norm_eps"
    rotary: bool = True
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    same: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inert: tuple[str, ...] = ()
    other_prefix: tuple[str, str] = ("", "")

    @property
    def activation_field(self) -> str:
        """Name of the field with the activation."""
        names = ("hidden_act", "hidden_activation", "mlp_hidden_act")
        return next(name for name in names if name in self.defaults)


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
# `post_attention_layernorm` is the norm of the feed-forward in BEFORE, and that of attention in
# AFTER and AROUND.
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

# Defaults of the config classes of transformers 5.23 for missing fields: those of Llama, from which
# the other families derive theirs.
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

HEADS, LOCAL = "num_key_value_heads", ("sliding_window", "layer_types")
