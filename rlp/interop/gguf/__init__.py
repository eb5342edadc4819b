"""Models in GGUF files, as folders in the Hugging Face format.

Reading order: `header` (what a file says, and where its tensors are), `config` and `rope` (its
metadata as config.json), `tokenizer` (as the files of a tokenizer), `names` (its tensors), `folder`
(all of it together). Needs the package `gguf`, which no other part of the project does.
"""

from rlp.interop.gguf.folder import FILE, as_folder, quantization, weights
from rlp.interop.gguf.header import is_gguf, parts
from rlp.interop.gguf.names import Weights

__all__ = ["FILE", "Weights", "as_folder", "is_gguf", "parts", "quantization", "weights"]
