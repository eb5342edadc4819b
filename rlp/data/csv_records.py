"""Records of .csv files, whose cells may contain line ends."""

import csv
from collections.abc import Iterator

from rlp.data.bounds import LIMITS, Limits
from rlp.data.content import OnRead, read_lines
from rlp.runtime.errors import UserError

# The limit of Python's reader, for the whole process; long problems exceed its default, 2^17.
csv.field_size_limit(max(csv.field_size_limit(), 2**24))


def csv_records(
    path: str, on_read: OnRead = lambda count: None, limits: Limits = LIMITS
) -> Iterator[tuple[str, list[str]]]:
    """Yield the location ("a.csv, line 3", its first line) and the cells of each record, including
    the names of the columns if the file begins with them. Blank lines are skipped.

    No error contains a cell, since it may be a private text.

    Args:
      path: the file.
      on_read: receives the number of bytes of the file that were read since its last call.
      limits: limits on rows.

    Raises:
      UserError: If the file cannot be read, or a record has more or fewer cells than the first.
    """
    line, width = 0, None
    where = f"{path}, line 1"

    def decoded() -> Iterator[str]:
        nonlocal line
        for content in read_lines(path, on_read, limits):
            line += 1
            yield content.decode() + "\n"

    try:
        for cells in csv.reader(decoded(), strict=True):
            if cells:
                width = len(cells) if width is None else width
                if len(cells) != width:
                    raise UserError(
                        f"{where}: has {len(cells)} cells, but the first record has {width}; put "
                        "cells with commas or line ends in double quotes"
                    )
                yield where, cells
            where = f"{path}, line {line + 1}"
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {line}: not valid UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise UserError(f"{where}: not valid CSV: {error}") from error
