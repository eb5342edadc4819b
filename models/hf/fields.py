"""The fields of config.json, by their effect on the network.

    supported   those of `Family.defaults`, rotary positions and layers: they define the network
    FIXED       read by transformers, but supported here at one value; others are errors
    HARMLESS    read by transformers, but without effect on the logits of a text
    others      not read by transformers either: they are kept, and reported once

`tests/models/hf_fields_test.py` derives the fields that transformers reads from its source, so the
test fails for a new version of transformers that reads fields missing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.hf.family import Family

Json = dict[str, Any]


class Unsupported(ValueError):
    """A config.json describes something that this project would compute differently."""


# Supported in all families, in addition to their `defaults`.
SHARED = frozenset(
    ("layer_types", "original_max_position_embeddings", "rope_parameters", "rope_scaling",
     "rope_theta", "sliding_window")
)  # fmt: skip

# Name -> supported values; exports write the first one. Null means that the field is absent, unless
# the config class of the family does not accept null. If the config classes of some families
# declare a field, it belongs to `others` in the families whose class does not.
FIXED: dict[str, tuple[Any, ...]] = {
    # Parts that the layers here do not have.
    "attention_bias": (False,),
    "attn_logit_softcapping": (None,),
    "mlp_bias": (False,),
    "use_bidirectional_attention": (False,),
    # Dropout is not implemented, so training would differ from what the file specifies.
    "attention_dropout": (0.0,),
    # The attention mask.
    "is_causal": (True,),
    "attention_chunk_size": (None,),
    "kv_sharing_modes": (None, []),
    # Other kinds of rotary positions.
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "_rope_type_labels": (None,),
    # Layers that differ from each other, or are of another kind.
    "per_layer_config": (None, {}),
    "mlp_layer_types": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "n_routed_experts": (None, 0),
    "num_mtp_layers": (None, 0),
    # Parts of a Mamba-2 layer, of the residual stream, and further layers, in other forms.
    "mamba_hidden_act": ("silu",),
    "mamba_proj_bias": (False,),
    "num_nextn_predict_layers": (0,),
    "residual_in_fp32": (False,),
    "use_bias": (False,),
    "use_conv_bias": (True,),
    # The network is of another type, or only a part of the model.
    "is_encoder_decoder": (False,),
    "decoder": (None,),
    "encoder": (None,),
    "generator": (None,),
    "text_config": (None,),
    "text_encoder": (None,),
    "vision_config": (None,),
    # The weights are in other files, or are stored in another way.
    "configuration_files": (None, []),
    "fusion_config": (None,),
    "quantization_config": (None,),
    "transformers_weights": (None,),
}
# Fields of FIXED in which null is not the same as absent: here it means false.
NULL_IS_A_VALUE = frozenset(("is_causal",))

# Reason -> names.
HARMLESS: dict[str, tuple[str, ...]] = {
    "it names the class of the model, and is checked separately": ("architectures", "model_type"),
    "it is read for rotary scaling, and has no other effect": ("max_position_embeddings",),
    "it records the origin of the model": (
        *("_commit_hash", "_name_or_path", "name_or_path", "transformers_version"),
    ),
    "it names code that runs only if it is trusted": ("auto_map",),
    "special token ids are read from the tokenizer and the generation config": (
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id"),
    ),
    "weights are read in the dtype of the file": ("dtype", "torch_dtype"),
    "it affects only the initialization of weights": (
        "init_std",
        "initializer_factor",
        "initializer_range",
    ),
    "it selects how attention is computed, not its result": (
        *("_attn_implementation", "_attn_implementation_internal", "attn_implementation"),
        *("_experts_implementation", "_experts_implementation_internal", "_is_quantized"),
        *("experts_implementation",),
    ),
    "it selects the outputs besides the logits, or their type": (
        *("_output_attentions", "output_attentions", "output_hidden_states", "return_dict"),
        "tie_last_hidden_states",
    ),
    "it saves memory or time without changing results": (
        *("chunk_size_feed_forward", "distributed_config", "gradient_checkpointing"),
        *("pretraining_tp", "use_cache"),
    ),
    "only classifier heads read it": (
        *("classifier_dropout", "hidden_dropout", "id2label", "label2id", "num_labels"),
        *("problem_type", "token_classification_bias"),
    ),
    "it describes extra layers for speculative decoding, which are not loaded": (
        *("chain_hidden_post_norm", "first_k_dense_replace", "logits_mup_width_multiplier"),
        *("mtp_hidden_states_first", "mtp_layer_types", "mtp_mlp_layer_types"),
        *("mtp_per_layer_config", "unpadded_vocab_size"),
    ),
    "only models of images or with other kinds of layers read it": (
        *("features_only", "image_size", "image_token_id", "layer_norm_eps"),
        *("mm_tokens_per_image", "num_channels", "number_of_conv_states", "out_indices"),
        *("patch_size", "pretrained_cfg", "qk_head_dim", "vision_aspect_ratio"),
        *("vision_feature_layer", "vision_feature_select_strategy"),
    ),
    "it is only compared with other fields": ("embed_dim", "num_heads"),
    "layer_types and sliding_window_pattern contain the same": ("_sliding_window_pattern",),
}
INERT = frozenset(name for names in HARMLESS.values() for name in names)


def _whole(x: Any) -> bool:
    """Return whether x is an integer; JSON does not distinguish 256 from 256.0."""
    return type(x) is int or (type(x) is float and x.is_integer())


KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number above 0": lambda x: _whole(x) and x > 0,
    "a whole number": _whole,
    "a number above 0": lambda x: type(x) in (int, float) and x > 0,
    "true or false": lambda x: type(x) is bool,
    "a text": lambda x: type(x) is str,
    "a list of texts": lambda x: type(x) is list and all(type(y) is str for y in x),
    "an object": lambda x: type(x) is dict,
}
COUNT, WHOLE, NUMBER, FLAG, TEXT, TEXTS, OBJECT = KINDS


def checked(name: str, value: Any, kind: str) -> Any:
    """Return the value if it is of a kind of `KINDS`; whole numbers as int.

    Raises:
      Unsupported: If it is not.
    """
    if not KINDS[kind](value):
        raise Unsupported(f"{name}={value!r} is not {kind}")
    return int(value) if kind in (COUNT, WHOLE) else value


class Fields:
    """The fields of a config.json, as the config class of its family reads them."""

    def __init__(self, family: Family, config: Json):
        self._family, self._config = family, config

    def __contains__(self, name: str) -> bool:
        return name in self._config

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value as it is, or the default if the field is missing."""
        return self._config.get(name, default)

    def take(self, name: str, kind: str) -> Any:
        """Return the value of a field, or the family's default if the field is missing.

        Args:
          name: name of the field.
          kind: a kind of `KINDS`.

        Returns:
          The value; None if it is null, or missing without a default.

        Raises:
          Unsupported: If the value is of another kind.
        """
        value = self._config.get(name, self._family.defaults.get(name))
        return None if value is None else checked(name, value, kind)

    def check(self, fixed: frozenset[str]) -> None:
        """Check for null in fields that need a value, and for unsupported values of FIXED fields.

        Args:
          fixed: names of `FIXED` that apply to the family.

        Raises:
          Unsupported: For the first such field.
        """
        for name in self._family.defaults:
            if name in self and self.get(name) is None and name not in self._family.nullable:
                raise Unsupported(
                    f"it lacks {name}, which is null; {self._family.name} needs a value"
                )
        for name in sorted(self._config.keys() & fixed):
            value, allowed = self._config[name], FIXED[name]
            absent = value is None and name not in NULL_IS_A_VALUE
            if not absent and value not in allowed:
                raise Unsupported(f"{name}={value!r} is not supported, only {allowed[0]!r} is")


def supported(family: Family) -> frozenset[str]:
    """Return the fields that define a network of this family."""
    own = family.defaults.keys() | set(family.more) | family.aliases.keys() | family.same.keys()
    return (SHARED | own) - set(family.inert)


def inert(family: Family) -> frozenset[str]:
    """Return the fields that transformers reads for this family without effect on a network."""
    return INERT | set(family.inert)


def under_own_names(family: Family, config: Json) -> Json:
    """Return a config.json with the fields of aliases under the names of the family.

    Raises:
      Unsupported: If two fields that mean the same contradict each other.
    """
    fields = {name: x for name, x in config.items() if name not in family.aliases}
    for alias, name in family.aliases.items():
        if alias in config and fields.setdefault(name, config[alias]) != config[alias]:
            raise Unsupported(f"{alias}={config[alias]!r} contradicts {name}={fields[name]!r}")
    for copy, name in family.same.items():
        value = fields.get(name, family.defaults[name])
        if config.get(copy) not in (None, value):
            raise Unsupported(f"{copy}={config[copy]!r} contradicts {name}={value!r}")
    return fields
