"""config.json to `ModelConfig` and back.

A value for which this project would compute something else than transformers is an error that names
the field: a model that silently differs from its model card is worse than none. Fields without
effect are accepted and kept for exports. `fields` has the tables, and implements what transformers
does with fields that are missing or null.
"""

import dataclasses

from models.config import HOW, ModelConfig
from models.hf.families import BY_NAME, FAMILIES, fixed
from models.hf.family import Family
from models.hf.fields import (
    COUNT,
    FIXED,
    FLAG,
    NUMBER,
    TEXT,
    Fields,
    Json,
    Unsupported,
    inert,
    supported,
    under_own_names,
)  # fmt: skip
from models.hf.rope import read_rope, unread_parameters, write_rope
from models.rope import Rope

ACTIVATIONS = {
    "swish": "silu",
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}
# Models of images and text -> the families of their language models.
LANGUAGE_MODELS = {"qwen3_5": "qwen3_5_text"}
# Fields beside `text_config` that hold for the language model.
OF_WHOLE_MODELS = ("quantization_config", "tie_word_embeddings")
MAX_LAYERS = 2**16  # far beyond any network; bounds the list of layer types
# Groups of fields that describe one thing: if one changes, all are rewritten.
FIELD_GROUPS = (
    frozenset(
        ("full_attention_interval", "layer_types", "max_window_layers", "sliding_window",
         "sliding_window_pattern", "use_sliding_window")
    ),
    frozenset(
        ("original_max_position_embeddings", "partial_rotary_factor", "rope_local_base_freq",
         "rope_parameters", "rope_scaling", "rope_theta")
    ),
    frozenset(
        ("hybrid_override_pattern", "layers_block_type", "layer_types", "num_hidden_layers")
    ),
    *(
        frozenset((name, other))
        for family in FAMILIES
        for other, name in (*family.aliases.items(), *family.same.items())
    ),
)  # fmt: skip


def language_model(config: Json) -> Json:
    """Return config.json of the language model of a model of images and text, if its weights can be
    read from the same files; any other config.json as it is.

    Raises:
      Unsupported: If the language model is of another family, or two fields contradict each other.
    """
    name, text = config.get("model_type"), config.get("text_config")
    if name not in LANGUAGE_MODELS:
        return config
    family = BY_NAME[LANGUAGE_MODELS[name]]
    if type(text) is not dict or text.get("model_type", family.name) != family.name:
        raise Unsupported(f"text_config of model_type={name!r} is not a {family.name}")
    fields = {field: config[field] for field in OF_WHOLE_MODELS if field in config} | text
    for field in OF_WHOLE_MODELS:
        if field in config and fields[field] != config[field]:
            raise Unsupported(f"{field} of text_config contradicts {field}={config[field]!r}")
    return fields | {"model_type": family.name, "architectures": [family.architecture]}


def family_of(config: Json) -> Family:
    """Return the family that a config.json names.

    Raises:
      Unsupported: If it names no family or one that is not supported.
    """
    name = config.get("model_type")
    known = ", ".join(BY_NAME)
    if name == "gemma3":
        raise Unsupported(
            "model_type='gemma3' is a model of images and text; save its text part alone, with "
            "transformers: Gemma3ForCausalLM.from_pretrained(…).save_pretrained(…)"
        )
    if name in ("qwen3_5_moe", "qwen3_5_moe_text"):
        raise Unsupported(f"model_type={name!r} has layers of experts, which are not supported")
    if name is None:
        raise Unsupported(f"it lacks model_type; these are supported: {known}")
    if not isinstance(name, str) or name not in BY_NAME:
        raise Unsupported(f"model_type={name!r} is not supported; these are: {known}")
    family = BY_NAME[name]
    architectures = config.get("architectures") or [family.architecture]
    # The first conversions of LLaMA wrote LLaMAForCausalLM.
    if [str(x).lower() for x in architectures] != [family.architecture.lower()]:
        raise Unsupported(f"architectures={architectures!r}; only {family.architecture} is read")
    return family


def read_config(config: Json) -> ModelConfig:
    """Return the network that a config.json describes.

    Raises:
      Unsupported: If a field has a value that would be computed differently here; the message names
        the field.
    """
    family = family_of(config)
    f = Fields(family, under_own_names(family, config))
    f.check(fixed(family))
    width, heads = f.take("hidden_size", COUNT), f.take("num_attention_heads", COUNT)
    if family.whole_heads and width % heads:
        raise Unsupported(
            f"hidden_size={width} is not a multiple of num_attention_heads={heads}, as "
            f"{family.name} needs"
        )
    layers = family.layers.count(f)
    if layers > MAX_LAYERS:
        raise Unsupported(f"num_hidden_layers={layers} is more than {MAX_LAYERS}")
    activation = f.take(family.activation_field, TEXT)
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise Unsupported(f"{family.activation_field}={activation!r} is not supported; {known} are")
    window, pattern = family.layers.read(f, family.name, layers)
    values = dict(family.shared) | {
        "vocab_size": f.take("vocab_size", COUNT),
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": f.take("num_key_value_heads", COUNT) or heads,
        "head_dim": f.take("head_dim", COUNT) or width // heads,
        "ffn_size": f.take("intermediate_size", COUNT),
        "activation": ACTIVATIONS[activation],
        "norm_epsilon": float(f.take(family.epsilon_field, NUMBER)),
        "sliding_window": window,
        "layer_pattern": pattern,
        "rope": read_rope(family, f) if family.rotary else Rope(),
        "tie_embeddings": f.take("tie_word_embeddings", FLAG),
    }
    values |= family.read_own(f, values)
    try:
        return ModelConfig(**values)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def unread_fields(config: Json) -> list[str]:
    """Return the fields of a config.json that neither this project nor transformers reads, sorted.

    They have no effect, and exports keep them.

    Raises:
      Unsupported: If the family is not supported.
    """
    family = family_of(config)
    known = supported(family) | fixed(family) | inert(family)
    rotary = unread_parameters(family, config) if family.rotary else []
    return sorted([*(config.keys() - known), *rotary])


def write_config(family: Family, model: ModelConfig) -> Json:
    """Return the fields of config.json that describe a network, for old and new readers.

    Raises:
      Unsupported: If the family cannot represent the network.
    """
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    fields: Json = {
        "architectures": [family.architecture],
        "model_type": family.name,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.ffn_size,
        family.activation_field: activations[model.activation],
        family.epsilon_field: model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
    }
    fields |= {name: FIXED[name][0] for name in family.defaults if name in FIXED}
    fields |= family.write_own(model)
    fields |= family.layers.write(model)
    if family.rotary:
        fields |= write_rope(family, model.rope)
    round_trip = read_config(fields)
    if differences := [
        f"model.{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if field.name not in HOW and getattr(model, field.name) != getattr(round_trip, field.name)
    ]:
        raise Unsupported(f"{family.name} has no networks with {', '.join(differences)}")
    return fields


def replaced(config: Json, model: ModelConfig) -> Json:
    """Return a config.json changed to describe another network of its family.

    Only fields that differ between the two networks are changed; fields without effect are kept.
    Integral floats become integers, since transformers rejects 256.0 for an integer field.

    Raises:
      Unsupported: If the family cannot represent the network.
    """
    family = family_of(config)
    old, new = (write_config(family, network) for network in (read_config(config), model))
    changed = {name for name in new if name not in old or new[name] != old[name]}
    for group in FIELD_GROUPS:
        if changed & group:
            changed |= group
    fields = {name: x for name, x in config.items() if name not in changed}
    fields |= {name: x for name, x in new.items() if name in changed}
    for name, default in family.defaults.items():
        if type(default) is int and type(fields.get(name)) is float:
            fields[name] = int(fields[name])
    return fields


def family_for(model: ModelConfig) -> Family:
    """Return the first family that can represent a network.

    Raises:
      Unsupported: If none can; the message lists the reasons.
    """
    reasons = []
    for family in FAMILIES:
        try:
            write_config(family, model)
        except Unsupported as error:
            reasons.append(str(error))
        else:
            return family
    raise Unsupported("no Hugging Face family has this network: " + "; ".join(reasons))
