"""The metadata of a GGUF file as config.json and generation_config.json.

What transformers' own reading passes over though the network needs it (scaling of the rotary
frequencies, sliding windows, caps on logits) is read here. Where the metadata does not say enough,
the file is refused.
"""

import math
from typing import Any

from rlp.interop.gguf.header import Header
from rlp.interop.gguf.keys import COUNT, INDEX, NUMBER, Keys
from rlp.interop.gguf.rope import read_scaling
from rlp.runtime.errors import UserError

Json = dict[str, Any]

# `general.architecture` -> model_type. Mistral's files say llama, too.
MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
GEMMA_27B = 62  # its layers
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # ours -> the metadata's
ENDS = ("eos", "eot", "eom")  # ids that end a generated text


def read_config(header: Header) -> tuple[Json, list[str]]:
    """config.json of a model, and the keys that were passed over.

    Raises:
      UserError: the architecture is not supported, or the network is not one that its family has.
    """
    architecture = _architecture(header)
    keys = Keys(header, architecture)
    heads = keys.take("attention.head_count", COUNT)
    found: Json = {
        "model_type": MODEL_TYPES[architecture],
        "hidden_size": keys.take("embedding_length", COUNT),
        "num_hidden_layers": keys.take("block_count", COUNT),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.take("attention.head_count_kv", COUNT, heads),
        "head_dim": _head_dim(header, keys, heads),
        "intermediate_size": keys.take("feed_forward_length", COUNT),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon", NUMBER),
        "max_position_embeddings": keys.take("context_length", COUNT),
        # The metadata may count the tokens without the rows that pad the embedding.
        "vocab_size": _rows(header, "token_embd.weight"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "torch_dtype": "float32",
    }
    # What the family of Gemma has otherwise than the others is in its own fields.
    found |= _gemma(keys, found) if architecture == "gemma3" else _others(keys, found)
    found["rope_scaling"] = read_scaling(header, keys, found)
    ids = special_ids(header)
    found |= {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids}
    return found, keys.finish()


def special_ids(header: Header) -> dict[str, int]:
    """Ids of the tokens bos, eos, unk and pad, those that the metadata names."""
    return _ids(header, ROLES)


def generation_config(header: Header) -> Json:
    """generation_config.json: a text ends with its eos, or with the end of a turn."""
    ids = special_ids(header)
    found: Json = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
    ends = list(dict.fromkeys(_ids(header, {name: name for name in ENDS}).values()))
    return found | ({"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {})


def _ids(header: Header, roles: dict[str, str]) -> dict[str, int]:
    count = len(header.metadata.get("tokenizer.ggml.tokens", ()))
    found = {}
    for role, name in roles.items():
        token = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is None:
            continue
        if type(token) is not int or not 0 <= token < count:
            raise UserError(
                f"{header.path}: tokenizer.ggml.{name}_token_id={token!r} is not one of the "
                f"{count} tokens; take another file"
            )
        found[role] = token
    return found


def _architecture(header: Header) -> str:
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise UserError(f"{header.path} holds general.type={kind!r}, not a whole model")
    name = header.metadata.get("general.architecture")
    if name not in MODEL_TYPES:
        raise UserError(
            f"{header.path}: general.architecture={name!r} is not supported; these are: "
            f"{', '.join(MODEL_TYPES)}"
        )
    return name


def _rows(header: Header, name: str) -> int:
    if name not in header.tensors:
        raise UserError(f"{header.path} has no tensor {name}; take a file with all of the model")
    return header.tensors[name].shape[0]


def _head_dim(header: Header, keys: Keys, heads: int) -> int:
    """Width of a head, which queries, keys, values and the rotary positions have to share."""
    rows = _rows(header, "blk.0.attn_q.weight")
    width = keys.take("attention.key_length", COUNT, rows // heads)
    for key in (
        *("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"),
        *("rope.dimension_count", "rope.dimension_count_swa"),
    ):
        if keys.take(key, COUNT, width) != width:
            raise keys.refusal(f"{keys.told(key)} is not the width of a head, {width}")
    return width


def _others(keys: Keys, found: Json) -> Json:
    """Fields of llama, mistral, qwen2 and qwen3."""
    fields: Json = {"hidden_act": "silu", "rope_theta": keys.take("rope.freq_base", NUMBER, 1e4)}
    window = keys.take("attention.sliding_window", INDEX, 0)
    if 0 < window < found["max_position_embeddings"]:
        if found["model_type"] != "llama":
            raise keys.refusal(f"{keys.told('attention.sliding_window')} is not supported")
        fields |= {"model_type": "mistral", "sliding_window": window}  # which is llama with one
    width = found["head_dim"]
    if (scale := keys.take("attention.scale", NUMBER, 0.0)) and not _is_scale(scale, width):
        raise keys.refusal(f"{keys.told('attention.scale')} is not 1/sqrt({width})")
    return fields


def _gemma(keys: Keys, found: Json) -> Json:
    """Fields of gemma3_text."""
    layers = found["num_hidden_layers"]
    fields: Json = {
        "hidden_activation": "gelu_pytorch_tanh",
        # Without these two, transformers and llama.cpp compute differently.
        "rope_theta": keys.take("rope.freq_base", NUMBER),
        "sliding_window": keys.take("attention.sliding_window", COUNT),
        # The converters write no key for it; llama.cpp and transformers both use 10,000.
        "rope_local_base_freq": keys.take("rope.freq_base_swa", NUMBER, 1e4),
        "final_logit_softcapping": keys.take("final_logit_softcapping", NUMBER, 0.0) or None,
        "query_pre_attn_scalar": _query_scalar(keys, found),
    }
    pattern = keys.take_any("attention.sliding_window_pattern")
    if type(pattern) is list:
        if len(pattern) != layers or not all(type(x) in (bool, int) for x in pattern):
            told = keys.told("attention.sliding_window_pattern")
            raise keys.refusal(f"{told} does not say for {layers} layers which are local")
        types = ("full_attention", "sliding_attention")
        return fields | {"layer_types": [types[bool(local)] for local in pattern]}
    every = keys.take("attention.sliding_window_pattern", COUNT, 6)
    return fields | {"sliding_window_pattern": every}


def _query_scalar(keys: Keys, found: Json) -> int:
    """The number whose root attention divides by.

    The converters write no key for it. llama.cpp knows the 27B by its layers, whose scores are
    divided as if its heads were hidden_size / heads wide. For the others transformers' config
    class has 256, which is the width of their heads.
    """
    scale = keys.take("attention.scale", NUMBER, 0.0)
    if not scale:
        is_27b = found["num_hidden_layers"] == GEMMA_27B
        return found["hidden_size"] // found["num_attention_heads"] if is_27b else 256
    scalar = round(scale**-2)
    if not _is_scale(scale, scalar):
        raise keys.refusal(f"{keys.told('attention.scale')} is not 1/sqrt of a whole number")
    return scalar


def _is_scale(scale: float, scalar: int) -> bool:
    return scalar > 0 and math.isclose(scale, scalar**-0.5, rel_tol=1e-6)
