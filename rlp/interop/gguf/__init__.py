"""Convert models in GGUF files to folders in the Hugging Face format.

Reading order: `header` (metadata and location of the tensors), `config` and `rope` (metadata to
config.json), `tokenizer` (metadata to tokenizer files), `names` (tensors), `folder` (the complete
conversion). Requires the package `gguf`, which no other part of the project uses.
"""

from rlp.interop.gguf.folder import FILE, as_folder, quantization, weights
from rlp.interop.gguf.header import is_gguf, parts
from rlp.interop.gguf.names import Weights

__all__ = ["FILE", "Weights", "as_folder", "is_gguf", "parts", "quantization", "weights"]
