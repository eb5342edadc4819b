"""Convert a model in a GGUF file to a temporary folder in the Hugging Face format."""

import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models import hf
from rlp.interop.gguf import config, tokenizer
from rlp.interop.gguf.header import Header, can_dequantize, parts, read
from rlp.interop.gguf.names import IGNORED, ROPE_FACTORS, Weights, hugging_face_name
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

FILE = "model.gguf"  # a link to the file, in place of model.safetensors
UNQUANTIZED = ("F32", "F16", "BF16")
_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept until the process ends


def as_folder(path: Path) -> Path:
    """Return the folder of a model: its config, its tokenizer, and a link to its weights.

    It is created once and removed when the process ends; the weights are not copied.

    Raises:
      UserError: If the file cannot be read, the architecture or the tokenizer is not supported, or
        the tensors do not match the architecture.
    """
    path = path.resolve()
    states = [part.stat() for part in parts(path)]
    return _convert(path, tuple((state.st_size, state.st_mtime_ns) for state in states))


def quantization(path: Path) -> str:
    """Return the quantization types of a file, the most frequent first, such as "Q4_1, Q8_0"; ""
    if no tensor is quantized."""
    kinds = [entry.kind for entry in read(path).tensors.values() if entry.kind not in UNQUANTIZED]
    return ", ".join(sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind)))


def weights(link: Path) -> Weights:
    """Return the tensors of a model, given its file or the link in its folder."""
    return Weights(read(link.resolve()))


@functools.lru_cache(maxsize=8)
def _convert(path: Path, states: tuple[tuple[int, int], ...]) -> Path:
    """Create the folder of `as_folder`; `states` are sizes and modification times of the parts."""
    header = read(path)
    fields, ignored = config.read_config(header)
    try:
        family, model = hf.family_of(fields), hf.read_config(fields)
    except hf.Unsupported as error:
        raise UserError(f"{path}: {error}") from error
    _check_tensors(header, hf.tensors(family, model))
    fields["architectures"] = [family.architecture]
    files = tokenizer.files(header) | {
        "config.json": _json(fields),
        "generation_config.json": _json(config.generation_config(header)),
    }
    if ignored:
        LOGGER.info("%s has metadata keys that are ignored: %s", path, ", ".join(ignored))
    temporary = tempfile.TemporaryDirectory(prefix="gguf-")
    _FOLDERS.append(temporary)
    folder = Path(temporary.name) / path.stem
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / FILE).symlink_to(path)
    return folder


def _check_tensors(header: Header, tensors: Sequence[hf.Tensor]) -> None:
    """Raise UserError if tensors do not match the architecture; all of them are named."""
    names_by_fault = {
        fault: sorted(names)
        for fault, names in (
            ("missing", _missing(header, tensors)),
            ("unexpected", _unexpected(header, tensors)),
            ("misshapen", _misshapen(header, tensors)),
            ("unsupported", _undequantizable(header)),
        )
    }
    faults = [f"{fault}: {', '.join(names)}" for fault, names in names_by_fault.items() if names]
    if faults:
        raise UserError(
            f"the tensors in {header.path} do not match its architecture: {'; '.join(faults)}; "
            "use another file of the model"
        )


def _named(header: Header) -> dict[str, str]:
    """Return a map from the names of tensors in the Hugging Face format to those in the file."""
    architecture = header.metadata["general.architecture"]
    named = {hugging_face_name(name, architecture): name for name in header.tensors}
    return {theirs: name for theirs, name in named.items() if theirs is not None}


def _missing(header: Header, tensors: Sequence[hf.Tensor]) -> Iterator[str]:
    named = _named(header)
    yield from (x.name for x in tensors if x.name not in named and not x.copy_of)


def _unexpected(header: Header, tensors: Sequence[hf.Tensor]) -> Iterator[str]:
    expected = {tensor.name for tensor in tensors}
    fitting = {name for theirs, name in _named(header).items() if theirs in expected}
    if header.metadata["general.architecture"] == "llama":
        fitting.add(ROPE_FACTORS)
    yield from (x for x in header.tensors if x not in fitting and not IGNORED.fullmatch(x))


def _misshapen(header: Header, tensors: Sequence[hf.Tensor]) -> Iterator[str]:
    named = _named(header)
    for tensor in tensors:
        if tensor.name in named:
            shape = header.tensors[named[tensor.name]].shape
            if shape != tuple(tensor.shape):
                yield f"{named[tensor.name]} is {list(shape)} instead of {list(tensor.shape)}"


def _undequantizable(header: Header) -> Iterator[str]:
    for entry in header.tensors.values():
        if not can_dequantize(entry.kind):
            yield f"{entry.name} is {entry.kind}, which the installed gguf cannot dequantize"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
