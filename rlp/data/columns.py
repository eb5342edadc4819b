"""Columns of rows: their names, and values that a row does not have."""

import dataclasses
from collections.abc import Iterable, Sequence

from rlp.runtime.errors import UserError

Column = tuple[str, str]  # the field of the config that names it, and its name


@dataclasses.dataclass(frozen=True)
class Missing:
    """Stands for a value that a row does not have; `reason` says why."""

    reason: str


def check_columns(path: str, columns: Sequence[Column], names: Iterable[str]) -> None:
    """Raises UserError if a column is missing among the names."""
    names = list(names)
    for field, column in columns:
        if column not in names:
            raise UserError(f"{path}: {missing_column(field, column, names).reason}")


def missing_column(field: str, column: str, names: Iterable[str]) -> Missing:
    """The lack of a column that a field names, among those of these names."""
    return Missing(f"no column {column!r}; set {field} to one of: {', '.join(names) or '(none)'}")
