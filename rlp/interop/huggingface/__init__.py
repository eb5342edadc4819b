"""Models in the Hugging Face format: folders, hub names and GGUF files in, folders out.

Reading order: `folder` (find a model and its weight files), `tensors` (check the map between their
tensors and our parameters), `weights` (load weights into parameters), `export` (write parameters to
a folder), `gguf` (convert GGUF files to folders).
"""

from rlp.interop.huggingface.export import write_folder
from rlp.interop.huggingface.folder import (
    CONFIG,
    find,
    has_other_parts,
    holds_gguf,
    may_be_on_hub,
    quantization,
    read_config,
)
from rlp.interop.huggingface.tokenized import text_ids
from rlp.interop.huggingface.weights import read_params

__all__ = [
    "CONFIG",
    "find",
    "has_other_parts",
    "holds_gguf",
    "may_be_on_hub",
    "quantization",
    "read_config",
    "read_params",
    "text_ids",
    "write_folder",
]
