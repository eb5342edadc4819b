"""Text documents and rows of columns from files, in a fixed order.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
import zstandard

from rlp.data import places
from rlp.errors import UserError

ENDINGS = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
Column = tuple[str, str]  # the field of the config that names it, and its name
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
        with _readable(path):
            for document in _documents(path, text_column, txt_separator, on_read):
                if document and not document.isspace():
                    yield document


def read_rows(
    files: Iterable[str],
    columns: Sequence[Column],
    on_read: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[str, list[object]]]:
    """Where each row of JSON lines and parquet files stands ("a.jsonl, line 3"), and its values.

    Args:
      files: paths with an ending of `ENDINGS`.
      columns: whose values are wanted, in this order.
      on_read: told how many bytes of a file have been read since it was last told.

    Raises:
      UserError: a file or line that cannot be read, or that has no columns.
    """
    for path in files:
        if _is_text(path):
            names = " and ".join(repr(column) for _, column in columns)
            raise UserError(f"{path}: a text file has no columns {names}; give .jsonl or .parquet")
        with _readable(path):
            yield from _rows(path, columns, on_read)


def as_text(where: str, column: str, value: object) -> str:
    """A value of a column as a text.

    Raises:
      UserError: it is none, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: column {column!r} is not a text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise UserError(f"{where}: column {column!r} is not valid Unicode: {error}") from error
    return value


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """An OSError in here as a UserError that names the file."""
    try:
        yield
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
    if _is_text(path):
        return _text(path, separator, on_read)
    rows = _rows(path, [("data.text_column", column)], on_read)
    return (as_text(where, column, value) for where, (value,) in rows)


def _is_text(path: str) -> bool:
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")


def _rows(
    path: str, columns: Sequence[Column], on_read: Callable[[int], object]
) -> Iterator[tuple[str, list[object]]]:
    """The rows of one file, see `read_rows`."""
    read = _parquet if path.lower().endswith(".parquet") else _jsonl
    return read(path, columns, on_read)


def _text(path: str, separator: str, on_read: Callable[[int], object]) -> list[str]:
    data = b"".join(_chunks(path, on_read))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not valid UTF-8: {error.reason}") from error
    return text.split(separator) if separator else [text]


def _jsonl(
    path: str, columns: Sequence[Column], on_read: Callable[[int], object]
) -> Iterator[tuple[str, list[object]]]:
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
        _check_columns(where, columns, row)
        yield where, [row[column] for _, column in columns]


def _parquet(
    path: str, columns: Sequence[Column], on_read: Callable[[int], object]
) -> Iterator[tuple[str, list[object]]]:
    try:
        with places.open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            _check_columns(path, columns, file.schema_arrow.names)
            size, rows, number = places.size(path), file.metadata.num_rows, 0
            wanted = [column for _, column in columns]
            for batch in file.iter_batches(_PARQUET_ROWS, columns=list(set(wanted))):
                for values in zip(*map(batch.column, wanted), strict=True):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        row = [value.as_py() for value in values]
                    except UnicodeDecodeError as error:
                        raise UserError(f"{where}: not valid UTF-8: {error.reason}") from error
                    yield where, row
                on_read(size * len(batch) // rows)
    except pyarrow.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable parquet file: {reason}") from error


def _check_columns(where: str, columns: Sequence[Column], names: Iterable[str]) -> None:
    """Raises UserError if a column is missing among the names."""
    names = list(names)
    for field, column in columns:
        if column not in names:
            known = ", ".join(names) or "(none)"
            raise UserError(f"{where}: no column {column!r}; set {field} to one of: {known}")


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
