"""What a GGUF file says about itself: its metadata, and where each tensor is.

The `gguf` package has a reader, which takes many seconds for a vocabulary of 262,144 tokens and
maps the whole file into memory. This one reads the header alone, once; the package's constants say
how, and its functions turn quantized blocks into numbers.
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
LFS = b"version https://git-lfs"  # how a pointer of git-lfs begins, in place of the file
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
# The formats of scalars by their number in the file; 8 is a string and 9 an array.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9
PIECE = 2**20  # numbers that are dequantized at a time


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
      name: there.
      path: the file, or the part of the model, that holds it.
      kind: how its numbers are stored, as "Q4_1".
      shape: rows first, as in numpy; of numbers, not of bytes.
      offset: where its bytes begin in the file.
      size: in bytes.
    """

    name: str
    path: Path
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Header:
    """A model in one GGUF file, or in several.

    Attributes:
      path: the file with its metadata.
      metadata: values by key; arrays are lists.
      tensors: by name, of all parts.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Entry]


def library(path: Path) -> ModuleType:
    """The package `gguf`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise UserError(
            f"{path} is a GGUF file, and reading it needs the package gguf: "
            "pip install -r requirements-gguf.txt"
        ) from error


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, or a file that is named like one."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return path.suffix == ".gguf" or file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read(path: Path) -> Header:
    """The header of a model; of all its parts, if it is split and `path` is one of them.

    Raises:
      UserError: the file is damaged, cut off, of an unknown version or byte order, or a part of
        the model is missing.
    """
    paths = parts(Path(os.path.abspath(path)))
    if len(paths) == 1:
        return _read_again(paths[0])
    return _joined([_read_again(part) for part in paths])


def parts(path: Path) -> list[Path]:
    """The files of a model, of which `path` is one.

    Raises:
      UserError: one is missing, or `path` cannot be read.
    """
    count = _read_again(path).metadata.get("split.count", 1)
    if count == 1:
        return [path]
    found = PART.fullmatch(path.name)
    if found is None or int(found["count"]) != count:
        raise UserError(
            f"{path} is one of {count} parts of a model; name the parts as they were:"
            f" <name>-00001-of-{count:05d}.gguf"
        )
    paths = [path.parent / f"{found['stem']}-{n + 1:05d}-of-{count:05d}.gguf" for n in range(count)]
    if missing := [part.name for part in paths if not part.is_file()]:
        raise UserError(
            f"{path} is one of {count} parts, and of these {', '.join(missing)} is missing; "
            "download all parts into one folder"
        )
    return paths


def numbers(entry: Entry) -> np.ndarray:
    """A tensor in float32, dequantized; [shape].

    Raises:
      UserError: its bytes cannot be read.
    """
    gguf = library(entry.path)
    try:
        data = np.fromfile(entry.path, np.uint8, entry.size, offset=entry.offset)
    except OSError as error:
        raise UserError(f"{entry.path} cannot be read ({error.strerror}); copy it again") from error
    if data.size != entry.size:
        raise _cut(entry.path)
    kind = gguf.GGMLQuantizationType[entry.kind]
    block, width = gguf.GGML_QUANT_SIZES[kind]
    # The package goes through a tensor by 16 rows, however short they are; in larger pieces it is
    # many times faster. Blocks never span rows.
    found = np.empty(math.prod(entry.shape), np.float32)
    step = max(PIECE // block, 1)
    for first in range(0, data.size // width, step):
        piece = data[first * width : (first + step) * width]
        found[first * block : (first + step) * block] = gguf.quants.dequantize(piece, kind)
    return found.reshape(entry.shape)


@functools.cache
def is_known(kind: str) -> bool:
    """Whether the package can turn tensors of this kind into numbers."""
    gguf = library(Path(kind))
    kind = gguf.GGMLQuantizationType[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _read_again(path: Path) -> Header:
    """`_read`, of a file that may have changed since the last time."""
    try:
        state = path.stat()
        return _read(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file") from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Header:
    with path.open("rb") as file:
        start = file.read(len(LFS))
        if not start:
            raise UserError(f"{path} is empty; download it again")
        if start == LFS:
            raise UserError(f"{path} is a pointer of git-lfs, not the file; fetch it: git lfs pull")
        if start[:4] != MAGIC:
            raise UserError(f"{path} is not a GGUF file; pass one, or the folder of a model")
        file.seek(4)
        try:
            return _Reader(path, file, size).header()
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise UserError(f"{path} is damaged ({error}); download it again") from error


def _joined(parts: list[Header]) -> Header:
    """One model of its parts; the first has the metadata."""
    first = parts[0]
    tensors: dict[str, Entry] = {}
    for number, part in enumerate(parts):
        if part.metadata.get("split.no") != number:
            raise UserError(
                f"{part.path} is not part {number + 1} of its model (split.no="
                f"{part.metadata.get('split.no')!r}); download the parts again"
            )
        if twice := sorted(tensors.keys() & part.tensors.keys()):
            raise UserError(f"{part.path} has {twice[0]}, which another part has, too")
        tensors |= part.tensors
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise UserError(
            f"the parts of {first.path} have {len(tensors)} tensors instead of {expected}; "
            "download all of them again"
        )
    return Header(first.path, first.metadata, tensors)


class _Reader:
    """A file, read from its fifth byte on."""

    def __init__(self, path: Path, file: BinaryIO, size: int):
        self._path, self._file, self._left = path, file, size - len(MAGIC)

    def header(self) -> Header:
        (version,) = self._unpack("I")
        if version & 0xFFFF == 0:
            raise UserError(
                f"{self._path} is of big-endian byte order; convert it: "
                f"gguf-convert-endian {self._path} little"
            )
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise UserError(f"{self._path} is GGUF version {version}; versions {known} are read")
        tensors, keys = self._unpack("QQ")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            if key in metadata:
                raise UserError(f"{self._path} has the key {key} twice; take another file")
            metadata[key] = self._value(*self._unpack("I"))
        infos = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise UserError(
                f"{self._path}: general.alignment={alignment!r} is not a number above 0"
            )
        begin = -(-self._file.tell() // alignment) * alignment
        entries = {entry.name: entry for entry in self._entries(infos, begin)}
        if len(entries) < len(infos):
            raise UserError(f"{self._path} has a tensor twice; take another file")
        return Header(self._path, metadata, entries)

    def _entries(self, infos: list[tuple[str, tuple, int, int]], begin: int) -> Iterator[Entry]:
        gguf = library(self._path)
        end = self._file.tell() + self._left
        for name, shape, number, offset in infos:
            try:
                kind = gguf.GGMLQuantizationType(number)
            except ValueError as error:
                raise UserError(
                    f"{self._path}: {name} is of type {number}, which the installed gguf does not "
                    "know; install a newer one, or take another quantization"
                ) from error
            block, width = gguf.GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % block:
                raise UserError(f"{self._path}: {name} {list(shape)} cannot be {kind.name}")
            size = math.prod(shape) // block * width
            if begin + offset + size > end:
                raise _cut(self._path)
            yield Entry(name, self._path, kind.name, shape, begin + offset, size)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, number of the kind, offset after the header."""
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
        of, count = self._unpack("IQ")
        if of in SCALARS:
            return list(self._unpack(f"{count}{SCALARS[of]}"))
        return [self._value(of) for _ in range(count)]

    def _string(self) -> str:
        (size,) = self._unpack("Q")
        return self._bytes(size).decode()

    def _unpack(self, form: str) -> tuple:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))

    def _bytes(self, size: int) -> bytes:
        """The next bytes. A size that is beyond the file is never allocated."""
        if size > self._left:
            raise _cut(self._path)
        self._left -= size
        return self._file.read(size)


def _cut(path: Path) -> UserError:
    return UserError(f"{path} is cut off or damaged: it ends too early; download it again")
