"""A model in a GGUF file as a folder in the Hugging Face format, made for this process."""

import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models import hf
from rlp.interop.gguf import config, tokenizer
from rlp.interop.gguf.header import Header, is_known, parts, read
from rlp.interop.gguf.names import ROPE_FACTORS, UNREAD, Weights, hugging_face_name
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

FILE = "model.gguf"  # a link to the file, where a folder has model.safetensors
PLAIN = ("F32", "F16", "BF16")
_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept until the process ends


def as_folder(path: Path) -> Path:
    """The folder of a model: its config, its tokenizer, and a link to its weights.

    It is made once, and goes when the process ends; the weights stay where they are.

    Raises:
      UserError: the file cannot be read, or the network or the tokenizer is not supported, or its
        tensors are not those of its network.
    """
    path = path.resolve()
    states = [part.stat() for part in parts(path)]
    return _made(path, tuple((state.st_size, state.st_mtime_ns) for state in states))


def quantization(path: Path) -> str:
    """The kinds of its quantized tensors, the most frequent first, as "Q4_1, Q8_0"; "" for none."""
    kinds = [entry.kind for entry in read(path).tensors.values() if entry.kind not in PLAIN]
    return ", ".join(sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind)))


def weights(link: Path) -> Weights:
    """The tensors of a model, by its file or the link to it in its folder."""
    return Weights(read(link.resolve()))


@functools.lru_cache(maxsize=8)
def _made(path: Path, states: tuple[tuple[int, int], ...]) -> Path:
    """`as_folder`, of files with these sizes and times of the last change."""
    header = read(path)
    fields, passed_over = config.read_config(header)
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
    if passed_over:
        LOGGER.info("%s: keys that change nothing here: %s", path, ", ".join(passed_over))
    kept = tempfile.TemporaryDirectory(prefix="gguf-")
    _FOLDERS.append(kept)
    made = Path(kept.name) / path.stem
    made.mkdir()
    for name, content in files.items():
        (made / name).write_text(content, encoding="utf-8")
    (made / FILE).symlink_to(path)
    return made


def _check_tensors(header: Header, tensors: Sequence[hf.Tensor]) -> None:
    """Raises UserError that names all tensors that do not fit."""
    found = {
        fault: sorted(names)
        for fault, names in (
            ("missing", _missing(header, tensors)),
            ("unexpected", _unexpected(header, tensors)),
            ("misshapen", _misshapen(header, tensors)),
            ("not read", _unread(header)),
        )
    }
    faults = [f"{fault}: {', '.join(names)}" for fault, names in found.items() if names]
    if faults:
        raise UserError(
            f"the tensors in {header.path} are not those of its network: {'; '.join(faults)}; "
            "take another file of the model"
        )


def _named(header: Header) -> dict[str, str]:
    """Names of its tensors in the Hugging Face format -> in the file."""
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
    yield from (x for x in header.tensors if x not in fitting and not UNREAD.fullmatch(x))


def _misshapen(header: Header, tensors: Sequence[hf.Tensor]) -> Iterator[str]:
    named = _named(header)
    for tensor in tensors:
        if tensor.name in named:
            shape = header.tensors[named[tensor.name]].shape
            if shape != tuple(tensor.shape):
                yield f"{named[tensor.name]} is {list(shape)} instead of {list(tensor.shape)}"


def _unread(header: Header) -> Iterator[str]:
    for entry in header.tensors.values():
        if not is_known(entry.kind):
            yield f"{entry.name} is {entry.kind}, which the installed gguf cannot dequantize"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
