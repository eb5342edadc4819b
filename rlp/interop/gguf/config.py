"""Convert the metadata of a GGUF file to config.json and generation_config.json.

Unlike the GGUF import of transformers, this also reads the scaling of rotary frequencies, sliding
windows and logit soft-capping. A file whose metadata is incomplete is refused.
"""

import math
from typing import Any

from rlp.interop.gguf.header import Header
from rlp.interop.gguf.keys import COUNT, INDEX, NUMBER, Keys
from rlp.interop.gguf.rope import read_scaling
from rlp.runtime.errors import UserError

Json = dict[str, Any]

# `general.architecture` -> model_type. Files of Mistral models also have "llama".
MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
GEMMA_27B = 62  # number of layers of the 27B model
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # role -> metadata name
ENDS = ("eos", "eot", "eom")  # ids that end a generated text


def read_config(header: Header) -> tuple[Json, list[str]]:
    """Return config.json of a model, and the metadata keys that are ignored.

    Raises:
      UserError: If the architecture or one of its settings is not supported.
    """
    architecture = _architecture(header)
    keys = Keys(header, architecture)
    heads = keys.take("attention.head_count", COUNT)
    fields: Json = {
        "model_type": MODEL_TYPES[architecture],
        "hidden_size": keys.take("embedding_length", COUNT),
        "num_hidden_layers": keys.take("block_count", COUNT),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.take("attention.head_count_kv", COUNT, heads),
        "head_dim": _head_dim(header, keys, heads),
        "intermediate_size": keys.take("feed_forward_length", COUNT),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon", NUMBER),
        "max_position_embeddings": keys.take("context_length", COUNT),
        # The metadata may not count the rows that pad the embedding.
        "vocab_size": _rows(header, "token_embd.weight"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "torch_dtype": "float32",
    }
    fields |= _gemma(keys, fields) if architecture == "gemma3" else _llama_and_qwen(keys, fields)
    fields["rope_scaling"] = read_scaling(header, keys, fields)
    ids = special_ids(header)
    fields |= {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids}
    return fields, keys.finish()


def special_ids(header: Header) -> dict[str, int]:
    """Return the ids of the bos, eos, unk and pad tokens that the metadata defines."""
    return _ids(header, ROLES)


def generation_config(header: Header) -> Json:
    """Return generation_config.json: generation ends with EOS or the end of a turn."""
    ids = special_ids(header)
    fields: Json = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
    ends = list(dict.fromkeys(_ids(header, {name: name for name in ENDS}).values()))
    return fields | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def _ids(header: Header, roles: dict[str, str]) -> dict[str, int]:
    count = len(header.metadata.get("tokenizer.ggml.tokens", ()))
    ids = {}
    for role, name in roles.items():
        token = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is None:
            continue
        if type(token) is not int or not 0 <= token < count:
            raise UserError(
                f"{header.path}: tokenizer.ggml.{name}_token_id={token!r} is not one of the "
                f"{count} tokens; use another file of the model"
            )
        ids[role] = token
    return ids


def _architecture(header: Header) -> str:
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise UserError(
            f"{header.path} has general.type={kind!r} and is not a complete model; use a GGUF file "
            "of the model"
        )
    name = header.metadata.get("general.architecture")
    if name not in MODEL_TYPES:
        raise UserError(
            f"{header.path}: general.architecture={name!r} is not supported; use one of "
            f"{', '.join(MODEL_TYPES)}"
        )
    return name


def _rows(header: Header, name: str) -> int:
    if name not in header.tensors:
        raise UserError(f"{header.path}: tensor {name} not found; use a file of the complete model")
    return header.tensors[name].shape[0]


def _head_dim(header: Header, keys: Keys, heads: int) -> int:
    """Return the width of a head, which must be the same for queries, keys, values and rotary
    positions."""
    rows = _rows(header, "blk.0.attn_q.weight")
    width = keys.take("attention.key_length", COUNT, rows // heads)
    for key in (
        *("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"),
        *("rope.dimension_count", "rope.dimension_count_swa"),
    ):
        if keys.take(key, COUNT, width) != width:
            raise keys.refusal(f"{keys.shown(key)} is not the width of a head, {width}")
    return width


def _llama_and_qwen(keys: Keys, common: Json) -> Json:
    """Return the specific fields of llama, mistral, qwen2 and qwen3."""
    fields: Json = {"hidden_act": "silu", "rope_theta": keys.take("rope.freq_base", NUMBER, 1e4)}
    window = keys.take("attention.sliding_window", INDEX, 0)
    if 0 < window < common["max_position_embeddings"]:
        if common["model_type"] != "llama":
            raise keys.refusal(f"{keys.shown('attention.sliding_window')} is not supported")
        fields |= {"model_type": "mistral", "sliding_window": window}  # which is llama with one
    width = common["head_dim"]
    if (scale := keys.take("attention.scale", NUMBER, 0.0)) and not _is_scale(scale, width):
        raise keys.refusal(f"{keys.shown('attention.scale')} is not 1/sqrt({width})")
    return fields


def _gemma(keys: Keys, common: Json) -> Json:
    """Return the specific fields of gemma3_text."""
    layers = common["num_hidden_layers"]
    fields: Json = {
        "hidden_activation": "gelu_pytorch_tanh",
        # The defaults of transformers and llama.cpp differ for these two, so they are required.
        "rope_theta": keys.take("rope.freq_base", NUMBER),
        "sliding_window": keys.take("attention.sliding_window", COUNT),
        # Converters do not write this key; llama.cpp and transformers both use 10,000.
        "rope_local_base_freq": keys.take("rope.freq_base_swa", NUMBER, 1e4),
        "final_logit_softcapping": keys.take("final_logit_softcapping", NUMBER, 0.0) or None,
        "query_pre_attn_scalar": _query_scalar(keys, common),
    }
    pattern = keys.take_any("attention.sliding_window_pattern")
    if type(pattern) is list:
        if len(pattern) != layers or not all(type(x) in (bool, int) for x in pattern):
            value = keys.shown("attention.sliding_window_pattern")
            raise keys.refusal(f"{value} must be a list of true or false for {layers} layers")
        types = ("full_attention", "sliding_attention")
        return fields | {"layer_types": [types[bool(local)] for local in pattern]}
    every = keys.take("attention.sliding_window_pattern", COUNT, 6)
    return fields | {"sliding_window_pattern": every}


def _query_scalar(keys: Keys, common: Json) -> int:
    """Return the number whose square root the attention scores are divided by.

    Converters do not write a key for it. llama.cpp recognizes the 27B model by its number of layers
    and divides its scores as if heads were hidden_size / heads wide. For the other models, the
    config class of transformers has 256, the width of their heads.
    """
    scale = keys.take("attention.scale", NUMBER, 0.0)
    if not scale:
        is_27b = common["num_hidden_layers"] == GEMMA_27B
        return common["hidden_size"] // common["num_attention_heads"] if is_27b else 256
    scalar = round(scale**-2)
    if not _is_scale(scale, scalar):
        raise keys.refusal(f"{keys.shown('attention.scale')} is not 1/sqrt of a whole number")
    return scalar


def _is_scale(scale: float, scalar: int) -> bool:
    return scalar > 0 and math.isclose(scale, scalar**-0.5, rel_tol=1e-6)
