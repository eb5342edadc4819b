"""Text documents from files, in a fixed order.

    .txt .txt.gz .txt.zst         one document, or several with a separator between them
    .jsonl .jsonl.gz .jsonl.zst   one JSON object a line
    .parquet                      one document a row

Everything that cannot be read raises UserError, which names the file and the line (for parquet,
the row; both count from 1). A text of nothing but white space is no document. Files, folders and
globs may be URLs (gs://bucket/texts), see `places`.
"""

import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
import zstandard

from rlp.data import places
from rlp.errors import UserError

ENDINGS = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_CHUNK = 1 << 20  # bytes read or decompressed at a time
_PARQUET_ROWS = 1024  # rows read at a time


def find_files(spec: str, field: str) -> list[str]:
    """The files that a comma-separated list of files, folders and globs names.

    Items keep their order; a folder (with those below it) and a glob give their files sorted by
    path, only those with an ending of `ENDINGS`. A file named twice counts once.

    Args:
      spec: the list.
      field: name of the config field it comes from, for messages.

    Raises:
      UserError: an item that does not exist, matches nothing or has another ending.
    """
    # A path may itself hold a comma.
    whole = not places.is_url(spec) and os.path.exists(os.path.expanduser(spec))
    items = [spec] if whole else [item.strip() for item in spec.split(",")]
    files: dict[str, str] = {}  # real path → path as given
    for item in filter(None, items):
        for path in _expand(os.path.expanduser(item), field):
            files.setdefault(places.identity(path), path)
    if not files:
        raise UserError(f"{field} is empty: give files, folders or globs, separated by commas")
    return list(files.values())


def read_documents(
    files: Iterable[str],
    text_column: str = "text",
    txt_separator: str = "",
    on_read: Callable[[int], object] = lambda count: None,
) -> Iterator[str]:
    """The documents of files, in order.

    Args:
      files: paths with an ending of `ENDINGS`.
      text_column: field of a JSON line or parquet row that holds the document.
      txt_separator: splits a .txt file into documents; "" keeps it whole.
      on_read: told how many bytes of a file have been read since it was last told.

    Raises:
      UserError: a file or line that cannot be read.
    """
    for path in files:
        try:
            for document in _documents(path, text_column, txt_separator, on_read):
                if document and not document.isspace():
                    yield document
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _expand(item: str, field: str) -> list[str]:
    """The files of one item of a list."""
    if places.is_file(item):
        if not item.lower().endswith(ENDINGS):
            raise UserError(f"{field}: {item} is of no known kind; known: {' '.join(ENDINGS)}")
        return [item]
    if places.is_folder(item):
        found = places.files_below(item)
    elif glob.has_magic(item):
        matches = places.matches(item)
        found = [
            f for m in matches for f in (places.files_below(m) if places.is_folder(m) else [m])
        ]
    else:
        raise UserError(f"{field}: no file or folder {item}")
    found = [f for f in found if f.lower().endswith(ENDINGS)]
    if not found:
        raise UserError(f"{field}: {item} holds no file of a known kind: {' '.join(ENDINGS)}")
    return found


def _documents(
    path: str, column: str, separator: str, on_read: Callable[[int], object]
) -> Iterable[str]:
    """The documents of one file, the empty ones included."""
    name = path.lower()
    if name.endswith(".parquet"):
        return _parquet(path, column, on_read)
    if name.removesuffix(".gz").removesuffix(".zst").endswith(".txt"):
        return _text(path, separator, on_read)
    return _jsonl(path, column, on_read)


def _text(path: str, separator: str, on_read: Callable[[int], object]) -> list[str]:
    data = b"".join(_chunks(path, on_read))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8: {error.reason}") from error
    return text.split(separator) if separator else [text]


def _jsonl(path: str, column: str, on_read: Callable[[int], object]) -> Iterator[str]:
    for number, line in enumerate(_lines(path, on_read), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not valid UTF-8: {error.reason}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object but {type(row).__name__}")
        if column not in row:
            raise UserError(_no_column(where, column, row))
        yield _document(where, column, row[column])


def _parquet(path: str, column: str, on_read: Callable[[int], object]) -> Iterator[str]:
    try:
        with places.open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise UserError(_no_column(path, column, names))
            size, rows, number = places.size(path), file.metadata.num_rows, 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        document = value.as_py()
                    except UnicodeDecodeError as error:
                        raise UserError(f"{where}: not valid UTF-8: {error.reason}") from error
                    yield _document(where, column, document)
                on_read(size * len(batch) // rows)
    except pyarrow.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable parquet file: {reason}") from error


def _no_column(where: str, column: str, names: Iterable[str]) -> str:
    return (
        f"{where}: no column {column!r}; set data.text_column to one of: "
        f"{', '.join(names) or '(none)'}"
    )


def _document(where: str, column: str, value: object) -> str:
    """A value as a text, or UserError."""
    if not isinstance(value, str):
        raise UserError(f"{where}: column {column!r} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise UserError(f"{where}: column {column!r} is not valid Unicode: {error}") from error
    return value


def _lines(path: str, on_read: Callable[[int], object]) -> Iterator[bytes]:
    """The lines of a file, without their newlines."""
    rest: list[bytes] = []
    for chunk in _chunks(path, on_read):
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest = [others[-1]]
    yield b"".join(rest)


def _chunks(path: str, on_read: Callable[[int], object]) -> Iterator[bytes]:
    """The content of a file, decompressed by its ending, in pieces."""
    with places.open_file(path) as file:
        if path.lower().endswith(".zst"):
            yield from _decompress_zstd(path, file, on_read)
            return
        packed = path.lower().endswith(".gz")
        unpack = gzip.GzipFile(fileobj=file) if packed else file
        told = 0
        try:
            while chunk := unpack.read(_CHUNK):
                yield chunk
                on_read(file.tell() - told)
                told = file.tell()
        except (EOFError, zlib.error) as error:
            raise UserError(f"{path}: damaged or cut off: {error}") from error


def _decompress_zstd(
    path: str, file: BinaryIO, on_read: Callable[[int], object]
) -> Iterator[bytes]:
    """The content of a zstd file.

    Frame by frame, since the library's own reader stops after the first frame of several and
    takes a file that was cut off for a shorter one.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None  # None between frames
    try:
        while data := file.read(_CHUNK):
            on_read(len(data))
            while data:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
                if frame.eof:
                    frame = None
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: damaged zstd file: {error}") from error
    if frame is not None:
        raise UserError(f"{path}: cut off: the zstd file ends in the middle of a frame")
