"""Read the header of a GGUF file: its metadata, and the location of each tensor.

The reader of the `gguf` package takes many seconds for a vocabulary of 262,144 tokens and maps the
whole file into memory. This reader reads only the header, once; it uses the constants of the
package, and its functions to dequantize blocks.
"""

import dataclasses
import functools
import importlib
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from rlp.runtime.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
LFS = b"version https://git-lfs"  # the beginning of a git-lfs pointer file
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
# The struct formats of scalars by their number in the file; 8 is a string and 9 an array.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9
PIECE = 2**20  # number of values that are dequantized at a time


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
      name: its name in the file.
      path: the file, or the part of a split model, that contains it.
      kind: its storage type, such as "Q4_1".
      shape: rows first, as in numpy; in values, not in bytes.
      offset: byte offset in the file.
      size: size in bytes.
    """

    name: str
    path: Path
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a model in one or several GGUF files.

    Attributes:
      path: the file with the metadata.
      metadata: values by key; arrays are lists.
      tensors: tensors of all parts, by name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Entry]


def library(path: Path) -> ModuleType:
    """Import the package `gguf`, to read the file at `path`.

    Raises:
      UserError: If it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise UserError(
            f"{path} is a GGUF file, and reading it needs the package gguf: "
            "pip install -r requirements-gguf.txt"
        ) from error


def is_gguf(path: Path) -> bool:
    """Return whether a path is a file with the content or the ending of a GGUF file."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return path.suffix == ".gguf" or file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read(path: Path) -> Header:
    """Read the header of a model; if `path` is a part of a split model, of all its parts.

    Raises:
      UserError: If the file is damaged or truncated, has an unsupported version or byte order, or a
        part of the model is missing.
    """
    paths = parts(Path(os.path.abspath(path)))
    if len(paths) == 1:
        return _read_current(paths[0])
    return _joined([_read_current(part) for part in paths])


def parts(path: Path) -> list[Path]:
    """Return the files of a model, one of which is `path`.

    Raises:
      UserError: If a part is missing, or `path` cannot be read.
    """
    count = _read_current(path).metadata.get("split.count", 1)
    if count == 1:
        return [path]
    match = PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise UserError(
            f"{path} is one of {count} parts of a model; restore the original file names:"
            f" <name>-00001-of-{count:05d}.gguf"
        )
    paths = [path.parent / f"{match['stem']}-{n + 1:05d}-of-{count:05d}.gguf" for n in range(count)]
    if missing := [part.name for part in paths if not part.is_file()]:
        raise UserError(
            f"{path} is one of {count} parts of a model, but {', '.join(missing)} not found; "
            "download all parts to one folder"
        )
    return paths


def numbers(entry: Entry) -> np.ndarray:
    """Read a tensor and dequantize it to float32, with shape `entry.shape`.

    Raises:
      UserError: If its bytes cannot be read.
    """
    gguf = library(entry.path)
    try:
        data = np.fromfile(entry.path, np.uint8, entry.size, offset=entry.offset)
    except OSError as error:
        raise UserError(f"{entry.path} cannot be read ({error.strerror}); copy it again") from error
    if data.size != entry.size:
        raise _truncated(entry.path)
    kind = gguf.GGMLQuantizationType[entry.kind]
    block, width = gguf.GGML_QUANT_SIZES[kind]
    # The package processes a tensor in groups of 16 rows, however short they are; larger pieces are
    # many times faster. Blocks never span rows.
    values = np.empty(math.prod(entry.shape), np.float32)
    step = max(PIECE // block, 1)
    for first in range(0, data.size // width, step):
        piece = data[first * width : (first + step) * width]
        values[first * block : (first + step) * block] = gguf.quants.dequantize(piece, kind)
    return values.reshape(entry.shape)


@functools.cache
def can_dequantize(kind: str) -> bool:
    """Return whether the package can dequantize tensors of this type."""
    gguf = library(Path(kind))
    kind = gguf.GGMLQuantizationType[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _read_current(path: Path) -> Header:
    """Call `_read`, whose cache is invalidated if the file has changed."""
    try:
        state = path.stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); pass another file") from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Header:
    with path.open("rb") as file:
        start = file.read(len(LFS))
        if not start:
            raise UserError(f"{path} is empty; download it again")
        if start == LFS:
            raise UserError(f"{path} is a git-lfs pointer, not the file; fetch it: git lfs pull")
        if start[:4] != MAGIC:
            raise UserError(f"{path} is not a GGUF file; pass a GGUF file or a model folder")
        file.seek(4)
        try:
            return _Reader(path, file, size).header()
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise UserError(f"{path} is damaged ({error}); download it again") from error


def _joined(parts: list[Header]) -> Header:
    """Join the parts of a model; the first part has the metadata."""
    first = parts[0]
    tensors: dict[str, Entry] = {}
    for number, part in enumerate(parts):
        if part.metadata.get("split.no") != number:
            raise UserError(
                f"{part.path} is not part {number + 1} of its model (split.no="
                f"{part.metadata.get('split.no')!r}); download the parts again"
            )
        if duplicates := sorted(tensors.keys() & part.tensors.keys()):
            raise UserError(
                f"{part.path} contains {duplicates[0]}, which another part contains too; download "
                "the parts again"
            )
        tensors |= part.tensors
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise UserError(
            f"the parts of {first.path} have {len(tensors)} tensors instead of {expected}; "
            "download the parts again"
        )
    return Header(first.path, first.metadata, tensors)


class _Reader:
    """Reads a file from its fifth byte on."""

    def __init__(self, path: Path, file: BinaryIO, size: int):
        self._path, self._file, self._remaining = path, file, size - len(MAGIC)

    def header(self) -> Header:
        (version,) = self._unpack("I")
        if version & 0xFFFF == 0:
            raise UserError(
                f"{self._path} has big-endian byte order; convert it: "
                f"gguf-convert-endian {self._path} little"
            )
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise UserError(
                f"{self._path} has GGUF version {version}, but only {known} are supported; convert "
                "the model again"
            )
        tensors, keys = self._unpack("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise UserError(
                    f"{self._path} has the key {key} twice; use another file of the model"
                )
            metadata[key] = self._value(*self._unpack("I"))
        infos = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise UserError(
                f"{self._path}: general.alignment={alignment!r} must be a whole number above 0; "
                "download the file again"
            )
        begin = -(-self._file.tell() // alignment) * alignment
        entries = {entry.name: entry for entry in self._entries(infos, begin)}
        if len(entries) < len(infos):
            raise UserError(f"{self._path} has a tensor twice; use another file of the model")
        return Header(self._path, metadata, entries)

    def _entries(self, infos: list[tuple[str, tuple, int, int]], begin: int) -> Iterator[Entry]:
        gguf = library(self._path)
        end = self._file.tell() + self._remaining
        for name, shape, number, offset in infos:
            try:
                kind = gguf.GGMLQuantizationType(number)
            except ValueError as error:
                raise UserError(
                    f"{self._path}: {name} has type {number}, which the installed gguf does not "
                    "support; install a newer version, or use another quantization"
                ) from error
            block, width = gguf.GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % block:
                raise UserError(
                    f"{self._path}: {name} with shape {list(shape)} cannot have type {kind.name}, "
                    f"which has blocks of {block}; download the file again"
                )
            size = math.prod(shape) // block * width
            if begin + offset + size > end:
                raise _truncated(self._path)
            yield Entry(name, self._path, kind.name, shape, begin + offset, size)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read name, shape, type number, and offset after the header."""
        name = self._string()
        (axes,) = self._unpack("I")
        shape = self._unpack(f"{axes}Q")[::-1]
        return (name, shape, *self._unpack("IQ"))

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            return self._unpack(SCALARS[kind])[0]
        if kind != ARRAY:
            raise UserError(f"{self._path} has a value of unknown type {kind}; download it again")
        element_kind, count = self._unpack("IQ")
        if element_kind in SCALARS:
            return list(self._unpack(f"{count}{SCALARS[element_kind]}"))
        return [self._value(element_kind) for _ in range(count)]

    def _string(self) -> str:
        (size,) = self._unpack("Q")
        return self._bytes(size).decode()

    def _unpack(self, form: str) -> tuple:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))

    def _bytes(self, size: int) -> bytes:
        """Read the next bytes. A size beyond the end of the file is never allocated."""
        if size > self._remaining:
            raise _truncated(self._path)
        self._remaining -= size
        return self._file.read(size)


def _truncated(path: Path) -> UserError:
    return UserError(f"{path} is truncated or damaged: it ends too early; download it again")
