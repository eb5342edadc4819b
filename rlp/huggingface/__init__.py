"""Models in the Hugging Face format: folders and hub names in, folders out.

Reading order: `folder` (where a model's files are and which weights they hold), `tensors` (what
reading and writing ask of the map between their names and our parameters), `weights` (their files
into our parameters), `export` (our parameters into a folder of theirs).
"""

from rlp.huggingface.export import write_folder
from rlp.huggingface.folder import find, read_config, weight_files
from rlp.huggingface.weights import read_params

__all__ = ["find", "read_config", "read_params", "weight_files", "write_folder"]
