"""Hugging Face model families, as configs of one transformer.

    weights       the map between a parameter and a tensor of a checkpoint
    fields        the fields of config.json: supported, fixed to one value, or without effect
    local_layers  the ways in which config.json marks local layers
    family        the declaration of a family: shared fields, weights, defaults
    gemma, llama, nemotron, olmo, qwen  the families, a file for each group; `families` lists all
    rope          rotary position embeddings in config.json
    config        config.json to `ModelConfig` and back

These modules do no input or output: `rlp.interop.huggingface` reads and writes the files.
"""

from models.hf.config import (
    LANGUAGE_MODELS,
    family_for,
    family_of,
    language_model,
    read_config,
    replaced,
    unread_fields,
    write_config,
)
from models.hf.families import BY_NAME, tensors
from models.hf.family import Family
from models.hf.fields import INERT, Json, Unsupported, inert
from models.hf.weights import Tensor, as_in, is_buffer, is_unused, whole_shapes

__all__ = [
    "BY_NAME",
    "INERT",
    "LANGUAGE_MODELS",
    "Family",
    "Json",
    "Tensor",
    "Unsupported",
    "as_in",
    "family_for",
    "family_of",
    "inert",
    "is_buffer",
    "is_unused",
    "language_model",
    "read_config",
    "replaced",
    "tensors",
    "unread_fields",
    "whole_shapes",
    "write_config",
]
