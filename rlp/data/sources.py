"""Text documents and rows of columns from files, in a fixed order.

    .txt .txt.gz .txt.zst            one document, or several with a separator between them
    .jsonl .jsonl.gz .jsonl.zst      one JSON object a line; .ndjson is another name for it
    .parquet                         one document a row

A file that is damaged raises UserError, which names the file and the line (for parquet, the row;
both count from 1). A row that cannot be used is named and counted (`unusable`). A text of nothing
but white space is not a document. Line ends of .txt files become LF; a JSON string and a parquet
text are data and keep theirs. Files, folders and globs may be URLs (gs://bucket/texts), see
`places`. Only regular files are read, within the limits of `bounds`.
"""

import dataclasses
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow
import pyarrow.parquet

from rlp.data import locations
from rlp.data.bounds import LIMITS, Limits, Meter
from rlp.data.content import OnRead, read_lines, read_texts, universal_newlines
from rlp.data.summary import Files, Summary, ending
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import Excessive, parse

ENDINGS = (
    *(".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst"),
    *(".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet"),
)
Column = tuple[str, str]  # the field of the config that names it, and its name
_PARQUET_ROWS = 1024  # most rows read at a time
_PATIENCE = 10_000  # rows of a file after which a column that none of them has is refused


@dataclasses.dataclass(frozen=True)
class Missing:
    """Stands for a value that a row does not have; `reason` says why."""

    reason: str


def find_files(spec: str, field: str) -> Files:
    """The files that a comma-separated list of files, folders and globs names.

    Items keep their order; a folder (with those below it, through links) and a glob give their
    regular files sorted by path, only those with an ending of `ENDINGS`; the others are counted. A
    file named twice counts once. A path may itself hold commas.

    Args:
      spec: the list.
      field: name of the config field it comes from, for messages.

    Raises:
      UserError: an item that does not exist, matches nothing or has another ending.
    """
    files: dict[str, str] = {}  # real path → path as given
    others: dict[str, str] = {}  # the same of what is passed over
    hidden: set[str] = set()
    unreadable: dict[str, str] = {}
    special: dict[str, str] = {}
    for item in _items(spec):
        with locations.reached(item):
            listing = _expand(os.path.expanduser(item), field)
        hidden |= {locations.identity(path) for path in listing.hidden}
        for path in listing.files:
            kept = files if _is_known(path) else others
            kept.setdefault(locations.identity(path), path)
        for path in listing.unreadable:
            folder, name = os.path.split(path)
            unreadable.setdefault(os.path.join(locations.identity(folder), name), path)
        special |= {locations.identity(path): _named_special(path) for path in listing.special}
    if not files:
        raise UserError(
            f"{field} is empty: give files, folders or globs, separated by commas",
            field=field,
            value=spec,
        )
    passed_over = [*map(ending, others.values()), *["hidden"] * len(hidden)]
    return Files(files.values(), passed_over, unreadable.values(), special.values())


def read_documents(
    summary: Summary,
    text_column: str = "text",
    txt_separator: str = "",
    on_read: OnRead = lambda count: None,
    limits: Limits = LIMITS,
) -> Iterator[str]:
    """The documents of files, in order.

    Args:
      summary: of the files, paths with an ending of `ENDINGS`; it counts what they hold.
      text_column: field of a JSON line or parquet row that holds the document.
      txt_separator: splits a .txt file into documents; "" keeps it whole. Its line ends may be
        written in any way.
      on_read: told how many bytes of a file have been read since it was last told.
      limits: of what is read.

    Raises:
      UserError: a file that cannot be read, or has no such column.
    """
    separator = universal_newlines(txt_separator)
    for path in summary.files:
        with _readable(path):
            texts: Iterable[tuple[str, object]]
            if _is_text(path):
                split = _split(path, separator, summary, on_read, limits)
                texts = ((path, text) for text in split)
            else:
                rows = _rows(path, [("data.text_column", text_column)], on_read, limits)
                texts = ((where, value) for where, (value,) in rows)
            for where, value in texts:
                try:
                    text = as_text(where, text_column, value)
                except UserError as error:
                    summary.unusable.count(error)
                    continue
                summary.unusable.count()
                if text and not text.isspace():
                    summary.count(path, len(text))
                    yield text
                else:
                    summary.empty += 1


def read_rows(
    files: Iterable[str],
    columns: Sequence[Column],
    on_read: OnRead = lambda count: None,
    limits: Limits = LIMITS,
) -> Iterator[tuple[str, list[object]]]:
    """Where each row of JSON lines and parquet files stands ("a.jsonl, line 3"), and its values.

    Args:
      files: paths with an ending of `ENDINGS`.
      columns: whose values are wanted, in this order. One that a row does not have is `Missing`,
        as are all those of a JSON line that is not an object.
      on_read: told how many bytes of a file have been read since it was last told.
      limits: of what is read.

    Raises:
      UserError: a file that cannot be read, has no columns, or has none of a name in any row.
    """
    for path in files:
        if _is_text(path):
            names = " and ".join(repr(column) for _, column in columns)
            raise UserError(f"{path}: a text file has no columns {names}; give .jsonl or .parquet")
        with _readable(path):
            yield from _rows(path, columns, on_read, limits)


def as_text(where: str, column: str, value: object) -> str:
    """A value of a column as a text.

    Raises:
      UserError: it is missing, not a text, or not valid Unicode.
    """
    check_present(where, value)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{where}: column {column!r} is not a text but {kind}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise UserError(f"{where}: column {column!r} is not valid Unicode: {error}") from error
    return value


def check_present(where: str, value: object) -> None:
    """Raises UserError if a row does not have a value."""
    if isinstance(value, Missing):
        raise UserError(f"{where}: {value.reason}")


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """An OSError in here as a UserError that names the file."""
    try:
        with locations.reached(path):
            yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _items(spec: str) -> list[str]:
    """The items of a list. One that exists only together with what follows the next comma is a
    path that holds a comma."""
    if _exists(spec):
        return [spec]
    items, parts = [], spec.split(",")
    while parts:
        whole = [n for n in range(1, len(parts) + 1) if _exists(",".join(parts[:n]).strip())]
        count = whole[0] if whole and not glob.has_magic(parts[0]) else 1
        items.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return [item for item in items if item]


def _exists(path: str) -> bool:
    """Whether this is a file or folder of this machine."""
    return bool(path) and not locations.is_url(path) and os.path.exists(os.path.expanduser(path))


def _expand(item: str, field: str) -> locations.Listing:
    """The files of one item of a list, of any kind, and at least one of a known kind."""
    known = " ".join(ENDINGS)
    if locations.is_file(item):
        if not _is_known(item):
            raise UserError(
                f"{field}: {item} is not of a known kind; known: {known}", field=field, value=item
            )
        return locations.Listing([item])
    if locations.is_folder(item):
        found = [locations.files_below(item)]
    elif glob.has_magic(item):
        found = [_matched(path) for path in locations.matches(item)]
    else:
        raise UserError(f"{field}: {_not_there(item)}", field=field, value=item)
    files = [path for listing in found for path in listing.files]
    unreadable = tuple(path for listing in found for path in listing.unreadable)
    special = tuple(path for listing in found for path in listing.special)
    if not any(map(_is_known, files)):
        others = Files((), map(ending, files), unreadable, map(_named_special, special)).not_read()
        holds = f" (it has: {others})" if others else ""
        raise UserError(
            f"{field}: {item} holds no file of a known kind: {known}{holds}",
            field=field,
            value=item,
        )
    hidden = tuple(path for listing in found for path in listing.hidden)
    return locations.Listing(files, hidden, unreadable, special)


def _named_special(path: str) -> str:
    return f"{locations.special_kind(path)} {path}"


def _not_there(item: str) -> str:
    """Why an item of a list is neither a file nor a folder."""
    if kind := locations.special_kind(item):
        return f"{item} is a {kind}; only regular files can be read"
    return f"{item} is a broken link" if os.path.islink(item) else f"no file or folder {item}"


def _matched(path: str) -> locations.Listing:
    """The files of what a glob matched."""
    if locations.is_folder(path):
        return locations.files_below(path)
    return locations.Listing([path]) if locations.is_url(path) else locations.sorted_out([path])


def _is_known(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def _is_text(path: str) -> bool:
    return path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")


def _split(
    path: str, separator: str, summary: Summary, on_read: OnRead, limits: Limits
) -> Iterator[str]:
    """The documents of a .txt file, the empty ones included."""
    count, empty = 0, True
    for text in read_texts(path, separator, on_read, limits):
        count += 1
        empty = empty and not text.strip()
        # A mark of byte order begins a file that was appended to another one.
        yield text.removeprefix("\ufeff") if separator else text
    if separator and count == 1 and not empty:
        summary.unsplit.append(path)


def _rows(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    """The rows of one file, see `read_rows`."""
    read = _parquet if path.lower().endswith(".parquet") else _jsonl
    return read(path, columns, on_read, limits)


def _jsonl(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    names: dict[str, None] = {}  # of the columns in the rows so far, in order
    objects = 0
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
            yield where, [Missing(str(error))] * len(columns)
            continue
        except ValueError as error:
            raise UserError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            reason = Missing(f"not a JSON object but {type(row).__name__}")
            yield where, [reason] * len(columns)
            continue
        objects += 1
        if objects <= _PATIENCE:
            names |= dict.fromkeys(row)
        if objects == _PATIENCE:
            _check_columns(path, columns, names)
        yield (
            where,
            [row[name] if name in row else _no(field, name, row) for field, name in columns],
        )
    if 0 < objects < _PATIENCE:
        _check_columns(path, columns, names)


def _parquet(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    try:
        with locations.open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            _check_columns(path, columns, names)
            wanted = [column for _, column in columns]
            for column in wanted:
                if names.count(column) > 1:
                    raise UserError(f"{path}: several columns are called {column!r}; rename them")
            size, rows, number = locations.size(path), file.metadata.num_rows, 0
            meter, count = _parquet_meter(path, file.metadata, wanted, limits)
            for batch in file.iter_batches(count, columns=list(set(wanted))):
                meter.made(batch.nbytes)
                _check_rows(path, number, batch, limits)
                for values in zip(*map(batch.column, wanted), strict=True):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        row = [_without_nulls(value.as_py()) for value in values]
                    except UnicodeDecodeError as error:
                        raise UserError(f"{where}: not valid UTF-8: {error.reason}") from error
                    yield where, row
                on_read(size * len(batch) // rows)
    except pyarrow.ArrowException as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable parquet file: {reason}") from error


def _parquet_meter(
    path: str, metadata: pyarrow.parquet.FileMetaData, wanted: Sequence[str], limits: Limits
) -> tuple[Meter, int]:
    """What counts the bytes of some columns, and how many rows may be read at a time.

    A dictionary holds a value once that any number of rows have, so a small page can be a row of
    the greatest length many times over. How long its values can be, its own size tells.
    """
    meter, longest = Meter(path, limits), 1
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema.partition(".")[0] not in wanted:
                continue
            meter.read(chunk.total_compressed_size)
            meter.made(0)
            if chunk.has_dictionary_page:
                page = chunk.data_page_offset - (chunk.dictionary_page_offset or 0)
                unpacked = max(page, 1) * limits.ratio
                longest = max(longest, min(chunk.total_uncompressed_size, int(unpacked)))
    return meter, max(1, min(_PARQUET_ROWS, limits.row_bytes // longest))


def _check_rows(path: str, before: int, batch: pyarrow.RecordBatch, limits: Limits) -> None:
    """Raises UserError if one of some rows, which follow `before` others, has too many bytes."""
    if batch.nbytes > limits.row_bytes:
        for row in range(len(batch)):
            limits.check_row(f"{path}, row {before + row + 1}", batch.slice(row, 1).nbytes)


def _without_nulls(value: object) -> object:
    """A value without the keys that hold null: parquet gives every struct of a column all keys
    that one of them has."""
    if isinstance(value, dict):
        return {key: _without_nulls(x) for key, x in value.items() if x is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value


def _check_columns(path: str, columns: Sequence[Column], names: Iterable[str]) -> None:
    """Raises UserError if a column is missing among the names."""
    names = list(names)
    for field, column in columns:
        if column not in names:
            raise UserError(f"{path}: {_no(field, column, names).reason}")


def _no(field: str, column: str, names: Iterable[str]) -> Missing:
    """The lack of a column that a field names, among those of these names."""
    return Missing(f"no column {column!r}; set {field} to one of: {', '.join(names) or '(none)'}")
