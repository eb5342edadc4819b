"""Find a model folder in the Hugging Face format, and read its config and weight files.

A GGUF file is converted to such a folder, which contains a link to it in place of safetensors.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

from models.hf import LANGUAGE_MODELS, Unsupported, language_model
from rlp.interop import gguf
from rlp.runtime import disk_errors
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # tensor name -> file, if there are several shards
# Files to fetch from a repository on the hub, without weights in other formats or duplicates.
PATTERNS = (
    *("*.json", "model*.safetensors", "*.jinja"),
    *("tokenizer*", "*.tiktoken", "merges.txt", "vocab.txt"),
)


def find(name: str) -> Path:
    """Return the folder of a model; fetch it from the hub (or its cache) if necessary.

    Args:
      name: a GGUF file, or a folder that contains one; a folder in the Hugging Face format; or
        "<owner>/<name>" or "<owner>/<name>@<revision>" on the hub.

    Raises:
      UserError: If the folder does not exist, a GGUF file cannot be read, or the model cannot be
        fetched.
    """
    folder = Path(name)
    if name and folder.is_dir():
        return _of_gguf(folder) if holds_gguf(folder) else folder
    if gguf.is_gguf(folder):
        return gguf.as_folder(folder)
    if folder.suffix == ".gguf":
        raise UserError(f"no such file: {name}")
    if folder.is_file():
        raise UserError(f"{name} is a file; pass the folder that contains it")
    repository, _, revision = name.partition("@")
    if not may_be_on_hub(name):
        raise UserError(f"no such folder: {name}; a name on the hub looks like owner/name")
    try:
        fetched = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(PATTERNS)
        )
    # The hub client raises OSError for most errors, and ValueError for malformed names.
    except (OSError, ValueError, HTTPError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, LocalEntryNotFoundError):  # its own message is very long
            reason = "no connection to the hub, and the model is not in the hub's cache"
        raise UserError(
            f"{name} is not a folder, and cannot be fetched from the hub ({reason}); pass the path "
            "of a downloaded folder"
        ) from error
    return Path(fetched)


def holds_gguf(folder: Path) -> bool:
    """Return whether a folder contains GGUF files and no config.json."""
    return not (folder / CONFIG).exists() and any(folder.glob("*.gguf"))


def _of_gguf(folder: Path) -> Path:
    """Return the model folder for a folder with one GGUF model, which may be in several parts."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1 and gguf.parts(files[0]) != files:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{folder} contains several GGUF files; pass one of them: {names}")
    return gguf.as_folder(files[0])


def quantization(name: str) -> str:
    """Return the quantization types of a GGUF file, such as "Q4_1, Q8_0"; "" for other models."""
    return gguf.quantization(Path(name)) if gguf.is_gguf(Path(name)) else ""


def may_be_on_hub(name: str) -> bool:
    """Return whether a name looks like "<owner>/<name>" and not like a path."""
    return not name.startswith(("/", ".", "~")) and name.partition("@")[0].count("/") == 1


def has_other_parts(folder: Path) -> bool:
    """Return whether a folder has a model of which only the language model is read."""
    path = folder / CONFIG
    return path.is_file() and read_object(path).get("model_type") in LANGUAGE_MODELS


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder; of a model of images and text, that of its language model, if
    it can be read alone.

    Raises:
      UserError: If it does not exist, is not a JSON object, or the language model is not supported.
    """
    config = read_object(folder / CONFIG, "pass the folder of a model in the Hugging Face format")
    try:
        return language_model(config)
    except Unsupported as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of every tensor of a folder, by tensor name. Reads headers only.

    Raises:
      UserError: If there are no weights, a file is damaged, or the index does not match the files.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file() and index.is_file():
        raise UserError(
            f"{folder} has both {WEIGHTS} and {INDEX}; remove the one that should not be used"
        )
    if index.is_file():
        return _indexed_files(index)
    if single.is_file():
        with open_weights(single) as file:
            return dict.fromkeys(file.keys(), single)
    if (link := folder / gguf.FILE).is_file():
        return dict.fromkeys(gguf.weights(link).keys(), link)
    if others := sorted(path.name for path in folder.glob("*.gguf")):
        raise UserError(f"{folder} has no safetensors; pass the GGUF file: {folder / others[0]}")
    if others := sorted(path.name for path in folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{folder} has {others[0]}, but only safetensors are supported; convert it with"
            f" transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r})"
            ".save_pretrained(<new folder>)"
        )
    raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}; pass the folder of a model")


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[safetensors.safe_open | gguf.Weights]:
    """Open a file of weights, which returns its tensors as numpy arrays.

    Tensors are read instead of memory-mapped: mapped pages would count as memory of this process.

    Raises:
      UserError: If the file cannot be read or is truncated.
    """
    if path.name == gguf.FILE:
        yield gguf.weights(path)
        return
    try:
        with safetensors.safe_open(path, framework="np", backend="pread") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); download or copy it again") from error


def _indexed_files(index: Path) -> dict[str, Path]:
    """Return `weight_files` of a sharded model, whose shards must match the index."""
    again = "download or copy the folder again"
    weight_map = read_object(index, again).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise UserError(f"{index} has no weight_map from tensor names to files; {again}")
    contents: dict[str, set[str]] = {}
    for name in sorted(set(weight_map.values())):
        if not disk_errors.is_inside(name):
            raise UserError(
                f"{index} names the file {name!r}, which is not inside its folder; {again}"
            )
        path = index.parent / name
        if not path.is_file():
            raise UserError(f"{path} is missing, but {index} lists it; {again}")
        with open_weights(path) as file:
            contents[name] = set(file.keys())
    for tensor, name in weight_map.items():
        if tensor not in contents[name]:
            raise UserError(f"{index} lists {tensor} in {name}, which does not contain it; {again}")
    for name, tensors in contents.items():
        if extra := sorted(tensor for tensor in tensors if weight_map.get(tensor) != name):
            raise UserError(
                f"{index.parent / name} contains {', '.join(extra)}, which {index} does not list"
                f" there; {again}"
            )
    return {tensor: index.parent / name for tensor, name in weight_map.items()}
