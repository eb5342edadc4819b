"""Model families of Hugging Face, as configuration of our one transformer.

    weights     a weight: a path here, a name there, operations that can be undone
    fields      the fields of config.json: supported, refused at other values, or without effect
    local_layers  ways to tell local layers from global ones
    family      what a family declares: what its members share, their weights, their defaults
    gemma, llama, olmo, qwen  the families, a file for each group; `families` has all of them
    rope        rotary positions in config.json
    config      config.json to `ModelConfig` and back

There is no input or output here: `rlp.interop.huggingface` reads and writes the files.
"""

from models.hf.config import (
    family_for,
    family_of,
    read_config,
    replaced,
    unread_fields,
    write_config,
)
from models.hf.families import BY_NAME, tensors
from models.hf.family import Family
from models.hf.fields import INERT, Json, Unsupported
from models.hf.weights import Tensor, is_buffer

__all__ = [
    "BY_NAME",
    "INERT",
    "Family",
    "Json",
    "Tensor",
    "Unsupported",
    "family_for",
    "family_of",
    "is_buffer",
    "read_config",
    "replaced",
    "tensors",
    "unread_fields",
    "write_config",
]
