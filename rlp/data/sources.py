"""Read documents and rows of columns from files, in a fixed order.

    .txt .txt.gz .txt.zst            one document, or several with a separator between them
    .jsonl .jsonl.gz .jsonl.zst      one JSON object per line; .ndjson is an alias
    .parquet                         one document per row

A damaged file raises UserError, which names the file and the line (for parquet, the row; both count
from 1). A row that cannot be used is reported and counted (`unusable`). A text that contains only
white space is not a document. Line ends of .txt files become LF; JSON strings and parquet texts
keep theirs. Files, folders and globs may be URLs (gs://bucket/texts), see `locations`. Only regular
files are read, within the limits of `bounds`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rlp.data import locations
from rlp.data.bounds import LIMITS, Limits
from rlp.data.columns import Column, Missing, check_columns, missing_column
from rlp.data.content import OnRead, read_lines, read_texts, universal_newlines
from rlp.data.file_list import is_text
from rlp.data.overlap import Overlaps
from rlp.data.parquet import parquet_columns, parquet_rows
from rlp.data.summary import Summary
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import Excessive, parse

_PATIENCE = 10_000  # rows of a file after which a column that none of them has raises an error


def read_documents(
    summary: Summary,
    text_column: str = "text",
    txt_separator: str = "",
    on_read: OnRead = lambda count: None,
    limits: Limits = LIMITS,
    column_field: str = "data.text_column",
    exclude: Overlaps | None = None,
) -> Iterator[str]:
    """Yield the documents of files, in order.

    Args:
      summary: counts the contents of its files, whose endings are in `ENDINGS`.
      text_column: column of a JSON line or parquet row that contains the document.
      txt_separator: splits a .txt file into documents; "" does not split it. Its line ends may be
        LF, CRLF or CR.
      on_read: receives the number of bytes of a file that were read since its last call.
      limits: limits on rows and decompression.
      column_field: field or flag that names the column, for messages.
      exclude: leaves out the documents that overlap with these problems; None for none.

    Raises:
      UserError: If a file cannot be read or does not have the column.
    """
    separator = universal_newlines(txt_separator)
    for path in summary.files:
        with read_errors_named(path):
            texts: Iterable[tuple[str, object]]
            if is_text(path):
                texts = _split(path, separator, summary, on_read, limits)
            else:
                rows = _rows(path, [(column_field, text_column)], on_read, limits)
                texts = ((where, value) for where, (value,) in rows)
            for where, value in texts:
                try:
                    text = as_text(where, text_column, value)
                except UserError as error:
                    summary.unusable.count(error)
                    continue
                summary.unusable.count()
                if not text or text.isspace():
                    summary.empty += 1
                elif exclude is not None and exclude.find(text):
                    summary.overlapping += 1
                else:
                    summary.count(path, len(text), where)
                    yield text


def read_rows(
    files: Iterable[str],
    columns: Sequence[Column],
    on_read: OnRead = lambda count: None,
    limits: Limits = LIMITS,
) -> Iterator[tuple[str, list[object]]]:
    """Yield the location ("a.jsonl, line 3") and values of each row of .jsonl and .parquet files.

    Args:
      files: paths with an ending of `ENDINGS`.
      columns: the columns to read, in this order. The value is `Missing` if a row does not have a
        column, or if a JSON line is not an object.
      on_read: receives the number of bytes of a file that were read since its last call.
      limits: limits on rows and decompression.

    Raises:
      UserError: If a file cannot be read, is a text file, or no row of it has one of the columns.
    """
    for path in files:
        if is_text(path):
            names = " and ".join(repr(column) for _, column in columns)
            raise UserError(f"{path}: a text file has no columns {names}; use .jsonl or .parquet")
        with read_errors_named(path):
            yield from _rows(path, columns, on_read, limits)


def column_names(path: str, limits: Limits = LIMITS) -> list[str]:
    """Return the columns of a .parquet file, or those of the first row of a .jsonl file.

    Raises:
      UserError: If the file cannot be read, or the row is not an object.
    """
    with read_errors_named(path):
        if path.lower().endswith(".parquet"):
            return parquet_columns(path)
        for where, row in json_lines(path, lambda count: None, limits):
            if isinstance(row, Missing):
                raise UserError(f"{where} {row.reason}")
            return list(row)
    return []


def as_text(where: str, column: str, value: object) -> str:
    """Return a value of a column, which must be a text.

    Raises:
      UserError: If the value is missing, not a text, or not valid Unicode.
    """
    check_present(where, value)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{where}: column {column!r} must be a text but is {kind}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON allows half of a surrogate pair
        raise UserError(f"{where}: column {column!r} is not valid Unicode: {error}") from error
    return value


def check_present(where: str, value: object) -> None:
    """Raise UserError if a value is missing in its row."""
    if isinstance(value, Missing):
        raise UserError(f"{where}: {value.reason}")


@contextmanager
def read_errors_named(path: str) -> Iterator[None]:
    """Convert an OSError in this context to a UserError that names the file."""
    try:
        with locations.server_errors_named(path):
            yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _split(
    path: str, separator: str, summary: Summary, on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, str]]:
    """Yield the location and text of each document of a .txt file, including empty ones."""
    count, empty = 0, True
    for text in read_texts(path, separator, on_read, limits):
        count += 1
        empty = empty and not text.strip()
        # If files were concatenated, each of them may begin with a BOM.
        text = text.removeprefix("\ufeff") if separator else text
        yield (f"{path}, document {count}" if separator else path), text
    if separator and count == 1 and not empty:
        summary.unsplit.append(path)


def _rows(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    """Yield the rows of one file, see `read_rows`."""
    read = parquet_rows if path.lower().endswith(".parquet") else _jsonl
    return read(path, columns, on_read, limits)


def _jsonl(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    names: dict[str, None] = {}  # the columns of the rows so far, in order
    objects = 0
    for where, row in json_lines(path, on_read, limits):
        if isinstance(row, Missing):
            yield where, [row] * len(columns)
            continue
        objects += 1
        if objects <= _PATIENCE:
            names |= dict.fromkeys(row)
        if objects == _PATIENCE:
            check_columns(path, columns, names)
        yield (
            where,
            [
                row[name] if name in row else missing_column(field, name, row)
                for field, name in columns
            ],
        )
    if 0 < objects < _PATIENCE:
        check_columns(path, columns, names)


def json_lines(
    path: str, on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, dict[str, object] | Missing]]:
    """Yield the location and object of each line of a .jsonl file; `Missing` for a line with
    another value or with too many values.

    Raises:
      UserError: If the file cannot be read or a line is not valid JSON.
    """
    for number, line in enumerate(read_lines(path, on_read, limits), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        limits.check_json(where, line)
        try:
            row = parse(line.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not valid UTF-8: {error.reason}") from error
        except Excessive as error:
            yield where, Missing(str(error))
            continue
        except ValueError as error:
            raise UserError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            row = Missing(f"must be a JSON object but is {type(row).__name__}")
        yield where, row
