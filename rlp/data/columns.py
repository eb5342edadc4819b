"""Names of the columns of a file, and the value for a column that a row does not have."""

import dataclasses
from collections.abc import Iterable, Sequence

from rlp.runtime.errors import UserError

Column = tuple[str, str]  # the config field that names the column, and the name


@dataclasses.dataclass(frozen=True)
class Missing:
    """Placeholder for a value that a row does not have; `reason` explains why."""

    reason: str


def check_columns(path: str, columns: Sequence[Column], names: Iterable[str]) -> None:
    """Raise UserError if one of the columns is not among `names`, the columns of a file."""
    names = list(names)
    for field, column in columns:
        if column not in names:
            raise UserError(f"{path}: {missing_column(field, column, names).reason}")


def missing_column(field: str, column: str, names: Iterable[str]) -> Missing:
    """Return the placeholder for `column`, which is not one of the columns `names`."""
    known = ", ".join(names) or "(none)"
    return Missing(f"column {column!r} not found; set {field} to one of: {known}")
