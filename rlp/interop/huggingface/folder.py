"""A model's folder in the Hugging Face format: where it is, its config, its weight files.

A GGUF file becomes such a folder, with a link to it in place of safetensors.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

from rlp.interop import gguf
from rlp.runtime import disk_errors
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # tensor name -> file, of weights in several files
# What of a repository on the hub is fetched: weights in other formats, or a second time, are not.
PATTERNS = (
    *("*.json", "model*.safetensors", "*.jinja"),
    *("tokenizer*", "*.tiktoken", "merges.txt", "vocab.txt"),
)


def find(name: str) -> Path:
    """The folder of a model; fetched from the hub, or found in its cache, where that is needed.

    Args:
      name: a GGUF file, or the folder of one; a folder in the Hugging Face format; or
        "<owner>/<name>" or "<owner>/<name>@<revision>" of the hub.

    Raises:
      UserError: no such folder, a GGUF file that cannot be read, or the hub does not give it.
    """
    folder = Path(name)
    if name and folder.is_dir():
        return _of_gguf(folder) if holds_gguf(folder) else folder
    if gguf.is_gguf(folder):
        return gguf.as_folder(folder)
    if folder.suffix == ".gguf":
        raise UserError(f"no such file: {name}")
    if folder.is_file():
        raise UserError(f"{name} is a file; pass the folder that it is in")
    repository, _, revision = name.partition("@")
    if not may_be_on_hub(name):
        raise UserError(f"no such folder: {name}; a name on the hub looks like owner/name")
    try:
        fetched = huggingface_hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(PATTERNS)
        )
    # What the hub's client raises: most errors are OSErrors, malformed names are ValueErrors.
    except (OSError, ValueError, HTTPError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, LocalEntryNotFoundError):  # with a long text of its own
            reason = "no connection to the hub, and it is not in the hub's cache"
        raise UserError(
            f"{name} is no folder, and cannot be fetched ({reason}); pass the path of a downloaded "
            "folder"
        ) from error
    return Path(fetched)


def holds_gguf(folder: Path) -> bool:
    """Whether a folder holds GGUF files in place of a model in the Hugging Face format."""
    return not (folder / CONFIG).exists() and any(folder.glob("*.gguf"))


def _of_gguf(folder: Path) -> Path:
    """`find`, of a folder with GGUF files: one model, which may be in several parts."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1 and gguf.parts(files[0]) != files:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{folder} holds several GGUF files; pass one of them: {names}")
    return gguf.as_folder(files[0])


def quantization(name: str) -> str:
    """The quantized kinds of tensors in a GGUF file, as "Q4_1, Q8_0"; "" for any other model."""
    return gguf.quantization(Path(name)) if gguf.is_gguf(Path(name)) else ""


def may_be_on_hub(name: str) -> bool:
    """Whether a name looks like "<owner>/<name>", and not like a path."""
    return not name.startswith(("/", ".", "~")) and name.partition("@")[0].count("/") == 1


def read_config(folder: Path) -> dict[str, Any]:
    """The object in a folder's config.json, as it stands.

    Raises:
      UserError: there is none, or it is not a JSON object.
    """
    return read_object(folder / CONFIG, "pass the folder of a model in the Hugging Face format")


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of every tensor of a folder, by tensor name. Reads headers only.

    Raises:
      UserError: no weights, a damaged file, or an index that does not tell what the files hold.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file() and index.is_file():
        raise UserError(
            f"{folder} has both {WEIGHTS} and {INDEX}; remove the one that is not meant"
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
            f"{folder} has {others[0]}, but only safetensors are read; convert it with"
            f" transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r})"
            ".save_pretrained(<new folder>)"
        )
    raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}; pass the folder of a model")


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[safetensors.safe_open | gguf.Weights]:
    """An open file of weights, whose tensors come as numpy arrays in memory of their own.

    They are read, not mapped: pages of a mapped file would count as memory of this process.

    Raises:
      UserError: the file cannot be read, or is not whole.
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
    """`weight_files` of weights in several files, which must hold exactly what the index says."""
    again = "download or copy the folder again"
    listed = read_object(index, again).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise UserError(f"{index} has no weight_map from tensor names to files; {again}")
    held: dict[str, set[str]] = {}
    for name in sorted(set(listed.values())):
        if not disk_errors.is_inside(name):
            raise UserError(
                f"{index} names the file {name!r}, which is not inside of its folder; {again}"
            )
        path = index.parent / name
        if not path.is_file():
            raise UserError(f"{path} is missing, though {index} lists it; {again}")
        with open_weights(path) as file:
            held[name] = set(file.keys())
    for tensor, name in listed.items():
        if tensor not in held[name]:
            raise UserError(f"{index} says that {tensor} is in {name}, which lacks it; {again}")
    for name, tensors in held.items():
        if extra := sorted(tensor for tensor in tensors if listed.get(tensor) != name):
            raise UserError(
                f"{index.parent / name} holds {', '.join(extra)}, which {index} does not list"
                f" there; {again}"
            )
    return {tensor: index.parent / name for tensor, name in listed.items()}
