"""config.json to `ModelConfig` and back.

What nobody here has asked for is refused by name, and so is a value that would be computed
differently: a model that is not the one of its card is worse than none.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from models.config import HOW, ModelConfig
from models.hf.families import BY_NAME, FAMILIES, Family
from models.rope import Rope

Json = dict[str, Any]

# What stands in a config.json and changes nothing of what the network computes from tokens.
INERT = frozenset(
    (
        "_attn_implementation_autoset", "_name_or_path", "_sliding_window_pattern", "architectures",
        "bos_token_id", "cache_implementation", "dtype", "eos_token_id", "initializer_range",
        "is_llama_config", "max_position_embeddings", "model_type", "pad_token_id",
        "pretraining_tp", "torch_dtype", "transformers_version", "unsloth_fixed",
        "unsloth_version", "use_cache",
    )
)  # fmt: skip
# Fields that are supported at these values alone: the first is what is written.
FIXED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attention_dropout": (0.0,),
    "attn_logit_softcapping": (None,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False,),
    "use_bidirectional_attention": (False, None),
}
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
LAYER_TYPES = {"full_attention": "G", "sliding_attention": "L"}
# rope_type -> its parameters: name there -> field of `Rope`.
ROPES: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
    },
}


class Unsupported(ValueError):
    """A config.json that says something which we would compute differently."""


KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number above 0": lambda x: type(x) is int and x > 0,
    "a number above 0": lambda x: type(x) in (int, float) and x > 0,
    "true or false": lambda x: type(x) is bool,
    "a text": lambda x: type(x) is str,
    "a list of texts": lambda x: type(x) is list and all(type(y) is str for y in x),
    "an object": lambda x: type(x) is dict,
}
COUNT, NUMBER, FLAG, TEXT, TEXTS, OBJECT = KINDS


def _checked(name: str, value: Any, kind: str) -> Any:
    """The value, if it is of that kind."""
    if not KINDS[kind](value):
        raise Unsupported(f"{name}={value!r} is not {kind}")
    return value


class _Fields:
    """A config.json in reading. Whatever nobody has asked for is refused at the end."""

    def __init__(self, config: Json):
        self._config, self._left = config, set(config) - INERT

    def __contains__(self, name: str) -> bool:
        return name in self._config

    def take(self, name: str, kind: str, *default: Any) -> Any:
        """The value, of one of `KINDS`. Null counts as absent, which needs a default."""
        self._left.discard(name)
        value = self._config.get(name)
        if value is not None:
            return _checked(name, value, kind)
        if not default:
            raise Unsupported(f"it lacks {name}")
        return default[0]

    def finish(self) -> None:
        """Refuses the fields that are left."""
        for name in sorted(self._left & set(FIXED)):
            if (value := self._config[name]) not in FIXED[name]:
                raise Unsupported(f"{name}={value!r} is not supported, only {FIXED[name][0]!r} is")
        if unknown := sorted(self._left - set(FIXED)):
            given = ", ".join(f"{name}={self._config[name]!r}" for name in unknown)
            raise Unsupported(f"it has fields that are not supported: {given}")


def family_of(config: Json) -> Family:
    """The family that a config.json names.

    Raises:
      Unsupported: for another one.
    """
    name = str(config.get("model_type"))
    if name == "gemma3":
        raise Unsupported(
            "model_type='gemma3' is a model of images and text; save its text part alone, with "
            "transformers: Gemma3ForCausalLM.from_pretrained(…).save_pretrained(…)"
        )
    if name not in BY_NAME:
        raise Unsupported(f"model_type={name!r} is not supported; these are: {', '.join(BY_NAME)}")
    family = BY_NAME[name]
    architectures = config.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise Unsupported(f"architectures={architectures!r}; only {family.architecture} is read")
    return family


def read_config(config: Json) -> ModelConfig:
    """The network that a config.json describes.

    Raises:
      Unsupported: for a field or a value that would be computed differently here, by name.
    """
    family = family_of(config)
    f = _Fields(config)
    width, heads = f.take("hidden_size", COUNT), f.take("num_attention_heads", COUNT)
    layers = f.take("num_hidden_layers", COUNT)
    activation = f.take(family.activation_field, TEXT)
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise Unsupported(f"{family.activation_field}={activation!r} is not supported; {known} are")
    window, pattern = _read_layers(family, f, layers)
    values = dict(family.shared) | {
        "vocab_size": f.take("vocab_size", COUNT),
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": f.take("num_key_value_heads", COUNT),
        "head_dim": f.take("head_dim", COUNT, family.head_dim or width // heads),
        "ffn_size": f.take("intermediate_size", COUNT),
        "activation": ACTIVATIONS[activation],
        "norm_epsilon": float(f.take("rms_norm_eps", NUMBER)),
        "sliding_window": window,
        "layer_pattern": pattern,
        "rope": _read_rope(family, f, config),
        "tie_embeddings": f.take("tie_word_embeddings", FLAG, family.tied_by_default),
    }
    if "query_pre_attn_scalar" in family.extras:
        scalar = float(f.take("query_pre_attn_scalar", COUNT))
        values["query_pre_attn_scalar"] = 0.0 if scalar == values["head_dim"] else scalar
    if "final_logit_softcapping" in family.extras:
        values["logit_softcap"] = float(f.take("final_logit_softcapping", NUMBER, 0.0))
    f.finish()
    try:
        return ModelConfig(**values)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def write_config(family: Family, model: ModelConfig) -> Json:
    """The fields of config.json that describe this network, in the forms of old and new readers.

    Raises:
      Unsupported: the family has no such network.
    """
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    found: Json = {
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
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
    }
    found |= {name: FIXED[name][0] for name in family.fixed}
    if "query_pre_attn_scalar" in family.extras:
        found["query_pre_attn_scalar"] = int(model.query_pre_attn_scalar) or model.head_dim
    if "final_logit_softcapping" in family.extras:
        found["final_logit_softcapping"] = model.logit_softcap or None
    found |= _write_layers(family, model) | _write_rope(family, model.rope)
    again = read_config(found)
    if differences := [
        f"model.{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if field.name not in HOW and getattr(model, field.name) != getattr(again, field.name)
    ]:
        raise Unsupported(f"{family.name} has no networks with {', '.join(differences)}")
    return found


def same_network(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether two configs are the same network, however it is computed."""
    fields = [field.name for field in dataclasses.fields(a) if field.name not in HOW]
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def replaced(given: Json, fields: Json) -> Json:
    """A config.json with another network: what is inert stays, and the rest is `fields`."""
    return {name: value for name, value in given.items() if name in INERT} | fields


def family_for(model: ModelConfig) -> Family:
    """The first family that has such a network.

    Raises:
      Unsupported: none has.
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


def _read_layers(family: Family, f: _Fields, layers: int) -> tuple[int, str]:
    """Window and pattern of the layers."""
    if family.layers == "none":
        return 0, "G"
    if family.layers == "all" and "sliding_window" not in f:
        raise Unsupported("it lacks sliding_window (null, where there is none)")
    types, window = f.take("layer_types", TEXTS, None), f.take("sliding_window", COUNT, None)
    if family.layers == "switch":
        local = f.take("use_sliding_window", FLAG, False)
        unsaid = () if local and types is None else (layers,)
        since = f.take("max_window_layers", COUNT, *unsaid)
        letters = ["L" if local and i >= since else "G" for i in range(layers)]
    elif family.layers == "all":
        letters = ["G" if window is None else "L"] * layers
    else:
        every = 4 if family.layers == "types" else f.take("sliding_window_pattern", COUNT, 6)
        letters = ["G" if (i + 1) % every == 0 else "L" for i in range(layers)]
    if types is not None:
        said = [LAYER_TYPES.get(kind, "") for kind in types]
        if len(said) != layers or "" in said or (family.layers == "all" and said != letters):
            raise Unsupported(f"layer_types={types!r} is not supported")
        letters = said
    if "L" not in letters:
        return 0, "G"
    if window is None:
        raise Unsupported("it lacks sliding_window, but has layers with sliding_attention")
    return window, _shortest("".join(letters))


def _shortest(letters: str) -> str:
    """The shortest pattern that, repeated, gives these layers."""
    size = len(letters)
    repeated = (letters[:n] for n in range(1, size + 1))
    return next(part for part in repeated if (part * size)[:size] == letters)


def _write_layers(family: Family, model: ModelConfig) -> Json:
    types = ["sliding_attention" if local else "full_attention" for local in model.is_local]
    window = model.sliding_window or None
    if family.layers == "none":
        return {}
    if family.layers == "all":
        return {"sliding_window": window}
    found: Json = {"sliding_window": window, "layer_types": types}
    if family.layers == "switch":
        found["use_sliding_window"] = window is not None
        # Old readers know no layer_types, but a number of global layers before the local ones.
        found["max_window_layers"] = types.count("full_attention")
    return found


def _read_rope(family: Family, f: _Fields, config: Json) -> Rope:
    """Rotary positions, as old readers know them (rope_theta, rope_scaling), as new ones do
    (rope_parameters), or as both, which then agree."""
    length = config.get("max_position_embeddings")
    theta, scaling = f.take("rope_theta", NUMBER, None), f.take("rope_scaling", OBJECT, None)
    new = f.take("rope_parameters", OBJECT, None)
    base = float(theta or family.default_theta)
    local = base
    if family.local_theta_field:
        local = float(f.take(family.local_theta_field, NUMBER, family.default_local_theta))
    found = []
    if new is not None and family.local_rope:
        if set(new) != set(LAYER_TYPES):
            raise Unsupported(f"rope_parameters={new!r} does not hold {', '.join(LAYER_TYPES)}")
        wide, near = (_checked("rope_parameters", new[kind], OBJECT) for kind in LAYER_TYPES)
        if (kind := near.get("rope_type", "default")) != "default":
            raise Unsupported(f"rope_type={kind!r} of sliding_attention is not supported")
        local = float(_checked("rope_theta", near.get("rope_theta", local), NUMBER))
        found.append(_rope(family, wide, base, local, length))
    elif new is not None:
        found.append(_rope(family, new, base, local, length))
    if new is None or theta is not None or scaling is not None:
        found.append(_rope(family, scaling or {}, base, local, length))
    if found[0] != found[-1]:
        raise Unsupported("rope_parameters contradicts rope_theta and rope_scaling; keep one form")
    return found[0]


def _rope(family: Family, parameters: Json, theta: float, local: float, length: Any) -> Rope:
    values = _read_scaling(parameters, length)
    theta = float(_checked("rope_theta", parameters.get("rope_theta", theta), NUMBER))
    try:
        return Rope(theta=theta, local_theta=local if family.local_rope else 0.0, **values)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def _read_scaling(parameters: Json, length: Any) -> Json:
    kind = _checked(
        "rope_type", parameters.get("rope_type", parameters.get("type", "default")), TEXT
    )
    if kind not in ROPES:
        raise Unsupported(f"rope_type={kind!r} is not supported; {', '.join(ROPES)} are")
    given = {name: x for name, x in parameters.items() if x is not None}
    for name in ("rope_type", "type", "rope_theta"):
        given.pop(name, None)
    for name, plain in (("truncate", True), ("partial_rotary_factor", 1.0)):
        if given.get(name) == plain:
            given.pop(name)
    if kind in ("llama3", "yarn") and length is not None:
        given.setdefault("original_max_position_embeddings", length)
    names = ROPES[kind]
    if unknown := sorted(set(given) - set(names)):
        said = ", ".join(f"{name}={given[name]!r}" for name in unknown)
        raise Unsupported(f"rope_type={kind!r} with {said} is not supported")
    needed = set(names) - {"beta_fast", "beta_slow", "attention_factor"}
    if missing := sorted(needed - set(given)):
        raise Unsupported(f"rope_type={kind!r} lacks {', '.join(missing)}")
    values: Json = {
        ours: float(_checked(name, given[name], NUMBER))
        for name, ours in names.items()
        if name in given
    }
    if "original_length" in values:
        values["original_length"] = int(values["original_length"])
    return values | ({"scaling": kind} if kind != "default" else {})


def _write_rope(family: Family, rope: Rope) -> Json:
    """In the form of old readers, which new ones know, too."""
    scaling: Json = {}
    if rope.scaling != "none":
        names = ROPES[rope.scaling]
        scaling = {"rope_type": rope.scaling} | {
            name: getattr(rope, ours) for name, ours in names.items()
        }
        if not scaling.get("attention_factor", True):
            del scaling["attention_factor"]
    found: Json = {"rope_theta": rope.theta, "rope_scaling": scaling or None}
    if not family.local_rope:
        return found
    near = rope.local_theta or rope.theta
    if family.local_theta_field:
        return found | {family.local_theta_field: near}
    if rope.theta == near == family.default_theta:
        return found
    # Old readers have no word for this, and new ones give local layers the default theta alone.
    wide = scaling | {"rope_theta": rope.theta}
    local = {"rope_type": "default", "rope_theta": near}
    types = {"full_attention": {"rope_type": "default"} | wide, "sliding_attention": local}
    return {"rope_parameters": types}
