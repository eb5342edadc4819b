"""The texts of the problems of task files, whatever their columns are called.

    .jsonl .jsonl.gz .jsonl.zst      one JSON object per line; .ndjson is an alias
    .parquet .csv                    one problem per row

A text is any string of a row, also inside lists and objects: question, options, answer. So nothing
has to be known about a benchmark to compare a corpus with it. The first row of a .csv file has the
names of the columns if columns are chosen, or if one of them is such a name; otherwise it is a
problem, as in the original files of MMLU.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

from rlp.data.bounds import LIMITS, Limits
from rlp.data.columns import Missing, check_columns
from rlp.data.content import OnRead
from rlp.data.corpus import reading
from rlp.data.csv_records import csv_records
from rlp.data.file_list import ENDINGS, find_files, is_text
from rlp.data.overlap import COPIES, SIZE, Overlaps
from rlp.data.parquet import parquet_columns, parquet_rows
from rlp.data.sources import json_lines, read_errors_named
from rlp.data.summary import plural
from rlp.runtime.display import listed
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

TASK_ENDINGS = (*(ending for ending in ENDINGS if not is_text(ending)), ".csv")
EXCLUDE = "data.exclude_overlaps"
_NAMES = {"question", "problem", "prompt", "choices", "options", "answer"}  # of columns


def exclusion(spec: str, limits: Limits = LIMITS) -> Overlaps | None:
    """Return the n-grams whose texts are not trained on; None if `spec` is empty.

    Args:
      spec: task files, folders or globs, separated by commas, as `data.exclude_overlaps` has them.
      limits: limits on rows and decompression.

    Raises:
      UserError: If a file cannot be read, or all problems are too short to be found.
    """
    if not spec:
        return None
    files = find_files(spec, EXCLUDE, TASK_ENDINGS)
    count = 0

    def problems() -> Iterator[list[str]]:
        nonlocal count
        with reading(files, EXCLUDE) as bar:
            for file in files:
                for texts in read_problems(file, on_read=bar.update, limits=limits):
                    count += 1
                    yield texts

    overlaps = Overlaps(problems(), COPIES)
    found = set().union(*(overlaps.comparable(kind).tolist() for kind in COPIES))
    if not found:
        raise UserError.of(
            EXCLUDE, spec, f"has no text of {SIZE} words, so no overlap can be found: set it to ''"
        )
    LOGGER.info(
        "%s: leaving out what shares %d words, or as many words and numbers, with one of %s in %s "
        "(%d are too short)",
        *(EXCLUDE, SIZE, plural(len(found), "problems"), listed(files), count - len(found)),
    )
    return overlaps


def read_problems(
    path: str,
    columns: Sequence[str] = (),
    on_read: OnRead = lambda count: None,
    limits: Limits = LIMITS,
) -> Iterator[list[str]]:
    """Yield the texts of each problem of a file, in order.

    Args:
      path: a file with an ending of `TASK_ENDINGS`.
      columns: the columns to read; empty for all.
      on_read: receives the number of bytes of the file that were read since its last call.
      limits: limits on rows and decompression.

    Raises:
      UserError: If the file cannot be read, has no rows, or lacks one of the columns.
    """
    names: dict[str, None] = {}
    empty = True
    with read_errors_named(path):
        for row in _rows(path, columns, on_read, limits):
            empty = False
            names |= dict.fromkeys(row)
            chosen = (row[name] for name in columns or row if name in row)
            yield [text for value in chosen for text in _texts(value)]
    if empty:
        raise UserError(f"{path}: contains no problems")
    check_columns(path, [("--columns", column) for column in columns], names)


def _rows(
    path: str, chosen: Sequence[str], on_read: OnRead, limits: Limits
) -> Iterator[Mapping[str, object]]:
    """Yield the row of each problem, with at least the chosen columns."""
    name = path.lower()
    if name.endswith(".parquet"):
        columns = parquet_columns(path)
        rows = parquet_rows(path, [("", column) for column in columns], on_read, limits)
        yield from (dict(zip(columns, row, strict=True)) for _, row in rows)
    elif name.endswith(".csv"):
        yield from _csv_rows(path, chosen, on_read, limits)
    else:
        for where, row in json_lines(path, on_read, limits):
            if isinstance(row, Missing):
                raise UserError(f"{where}: {row.reason}")
            yield row


def _csv_rows(
    path: str, chosen: Sequence[str], on_read: OnRead, limits: Limits
) -> Iterator[Mapping[str, object]]:
    records = csv_records(path, on_read, limits)
    where, first = next(records, (path, []))
    for column in chosen:
        if column not in first:  # the message lists no cells, since they may be a problem
            raise UserError(
                f"{where}: none of the {len(first)} cells is {column!r}; the first line must have "
                "the names that --columns selects"
            )
    names = first if chosen else [str(number) for number in range(len(first))]  # names may repeat
    if first and not chosen and not any(cell.strip().lower() in _NAMES for cell in first):
        LOGGER.info(
            "%s: none of the cells is %s, so this line is a problem, not the names of columns",
            *(where, " or ".join(sorted(_NAMES))),
        )
        yield dict(zip(names, first, strict=True))
    for _, cells in records:
        yield dict(zip(names, cells, strict=True))


def _texts(value: object) -> Iterator[str]:
    """Yield the strings inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        inner = value.values() if isinstance(value, Mapping) else value
        for item in inner:
            yield from _texts(item)
