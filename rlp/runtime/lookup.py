"""Resolve a config field that names a built-in object or an object in a module of the user."""

import functools
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlp.runtime import user_code
from rlp.runtime.errors import UserCodeError, UserError

LOGGER = logging.getLogger(__name__)

# The fields of a config that may name code, also within arms.
FIELDS = ("objective", "data.kind", "data.problems.verifier")
T = TypeVar("T")


def find_named(
    field: str,
    name: str,
    known: Mapping[str, T],
    kind: type[T],
    package: str,
    others: Sequence[str] = (),
    other: str = "",
) -> Any:
    """Return the built-in object of this name, or import the object that "<module>:<name>" names.

    The import runs the code of the module. A module from outside this repository is logged once.

    Args:
      field: The config field, for messages.
      name: The value of the field.
      known: The built-in objects by name.
      kind: The class of objects that may be imported.
      package: The package from which users import `kind`, for messages.
      others: Further valid names of the field, which the caller handles.
      other: Description of what may be imported instead of a `kind`; the caller checks it. "" if
        there is no alternative.

    Raises:
      UserError: If there is no such object, or it cannot be imported.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    either = f" or {other}" if other else ""
    if not attribute:
        raise UserError.of(
            field,
            name,
            f"is unknown; use one of {', '.join([*others, *known])}, or '<module>:<name>' of your "
            f"own {kind.__name__}{either}",
        )
    value = _imported(field, module, attribute)
    if not isinstance(value, kind) and not other:
        raise wrong_kind(field, name, f"a {package}.{kind.__name__}")
    return value


def wrong_kind(field: str, name: str, wanted: str) -> UserError:
    """Return the error for a field that names an object of the wrong class."""
    return UserError.of(field, name, f"is not {wanted}")


def names_code(path: str) -> bool:
    """Whether the config field with this dotted path may name code."""
    return any(path == field or path.endswith(f".{field}") for field in FIELDS)


@functools.cache
def _imported(field: str, module: str, attribute: str) -> Any:
    """Import an attribute of a module.

    Raises:
      UserError: If it cannot be imported; with the user's frames if the module raised an error.
    """
    name = f"{field}={f'{module}:{attribute}'!r}"
    try:
        source = importlib.import_module(module)
        value = getattr(source, attribute)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the code of the module can raise anything
        kind = "" if isinstance(error, ImportError | AttributeError) else type(error).__name__
        reason = " ".join(f"{kind}: {error}".removeprefix(": ").split())[:500]
        raise UserCodeError(
            f"{name} cannot be imported: {reason}",
            user_code.frames_of(error),
            field=field,
            value=f"{module}:{attribute}",
        ) from error
    file = getattr(source, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(user_code.ROOT):
        LOGGER.info("%s %s:%s is imported from %s", field, module, attribute, file or "Python")
    return value


def forget_imports() -> None:
    """Clear the cache of imported attributes, which a notebook may have changed since."""
    _imported.cache_clear()
