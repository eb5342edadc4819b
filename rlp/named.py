"""What a field of the config names: something of ours, or of a module of the user's."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from rlp.errors import UserError

T = TypeVar("T")


def find_named(
    field: str,
    name: str,
    known: Mapping[str, T],
    kind: type[T],
    package: str,
    others: Sequence[str] = (),
) -> T:
    """What is known by that name, or what "<module>:<name>" says where to import.

    Args:
      field: of the config.
      name: its value.
      known: by their names.
      kind: of what may be imported.
      package: that gives it to users.
      others: names that the field may have, which are asked for elsewhere.

    Raises:
      UserError: there is none.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise UserError(
            f"{field}={name!r} is unknown; use one of {', '.join([*others, *known])}, or "
            f"'<module>:<name>' of your own {kind.__name__}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{field}={name!r} cannot be imported: {error}") from error
    if not isinstance(found, kind):
        raise UserError(f"{field}={name!r} is no {package}.{kind.__name__}")
    return found
