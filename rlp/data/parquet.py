"""Rows of parquet files."""

from collections.abc import Iterator, Sequence

import pyarrow
import pyarrow.parquet

from rlp.data import locations
from rlp.data.bounds import Limits, Meter
from rlp.data.columns import Column, check_columns
from rlp.data.content import OnRead
from rlp.runtime.errors import UserError

_ROWS = 1024  # maximum rows read at a time


def parquet_rows(
    path: str, columns: Sequence[Column], on_read: OnRead, limits: Limits
) -> Iterator[tuple[str, list[object]]]:
    """Yield the rows of one file, see `sources.read_rows`."""
    try:
        with locations.open_file(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            names = file.schema_arrow.names
            check_columns(path, columns, names)
            wanted = [column for _, column in columns]
            for column in wanted:
                if names.count(column) > 1:
                    raise UserError(f"{path}: several columns are named {column!r}; rename them")
            size, rows, number = locations.size(path), file.metadata.num_rows, 0
            meter, count = _meter(path, file.metadata, wanted, limits)
            for batch in file.iter_batches(count, columns=list(set(wanted))):
                meter.unpacked(batch.nbytes)
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
        raise _unreadable(path, error) from error


def parquet_columns(path: str) -> list[str]:
    """Return the names of the columns of a file.

    Raises:
      UserError: If the file cannot be read.
    """
    try:
        with locations.open_file(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            return list(dict.fromkeys(file.schema_arrow.names))
    except pyarrow.ArrowException as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: pyarrow.ArrowException) -> UserError:
    reason = str(error).split("\n")[0]
    return UserError(f"{path}: not a readable parquet file: {reason}")


def _meter(
    path: str, metadata: pyarrow.parquet.FileMetaData, wanted: Sequence[str], limits: Limits
) -> tuple[Meter, int]:
    """Return a meter for the bytes of some columns, and the number of rows to read at a time.

    A dictionary page stores a value once that any number of rows share, so a small file can unpack
    to many very long rows. The size of the page bounds the length of its values.
    """
    meter, longest = Meter(path, limits), 1
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema.partition(".")[0] not in wanted:
                continue
            meter.read(chunk.total_compressed_size)
            meter.unpacked(0)
            if chunk.has_dictionary_page:
                page = chunk.data_page_offset - (chunk.dictionary_page_offset or 0)
                unpacked = max(page, 1) * limits.ratio
                longest = max(longest, min(chunk.total_uncompressed_size, int(unpacked)))
    return meter, max(1, min(_ROWS, limits.row_bytes // longest))


def _check_rows(path: str, before: int, batch: pyarrow.RecordBatch, limits: Limits) -> None:
    """Raise UserError if a row of a batch, which follows `before` other rows, is too long."""
    if batch.nbytes > limits.row_bytes:
        for row in range(len(batch)):
            limits.check_row(f"{path}, row {before + row + 1}", batch.slice(row, 1).nbytes)


def _without_nulls(value: object) -> object:
    """Remove the keys of a value that are null: in parquet, every struct of a column has all keys
    that any of them has."""
    if isinstance(value, dict):
        return {key: _without_nulls(x) for key, x in value.items() if x is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value
