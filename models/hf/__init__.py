"""Model families of Hugging Face, as configuration of our one transformer.

    weights     a weight: a path here, a name there, operations that can be undone
    families    the families: what their members share, and their weights
    config      config.json to `ModelConfig` and back; what it does not know is refused by name

There is no input or output here: `rlp.huggingface` reads and writes the files.
"""

from models.hf.config import (
    INERT,
    Json,
    Unsupported,
    family_for,
    family_of,
    read_config,
    replaced,
    same_network,
    write_config,
)
from models.hf.families import BY_NAME, Family, tensors
from models.hf.weights import Tensor

__all__ = [
    "BY_NAME",
    "INERT",
    "Family",
    "Json",
    "Tensor",
    "Unsupported",
    "family_for",
    "family_of",
    "read_config",
    "replaced",
    "same_network",
    "tensors",
    "write_config",
]
