"""What a field of the config names: something of ours, or of a module of the user's."""

import functools
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlp.runtime import user_code
from rlp.runtime.errors import UserCodeError, UserError

LOGGER = logging.getLogger(__name__)

# The fields of a config that may name code, those of arms too.
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
    """What is known by that name, or what "<module>:<name>" says where to import.

    The import runs the code of that module. A module from outside this repository is named in the
    log, once.

    Args:
      field: of the config.
      name: its value.
      known: by their names.
      kind: of what may be imported.
      package: that gives it to users.
      others: names that the field may have, which are asked for elsewhere.
      other: what may be imported in place of a `kind`, in words; the caller looks whether it is
        that. "" for nothing.

    Raises:
      UserError: there is none.
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
    found = _imported(field, module, attribute)
    if not isinstance(found, kind) and not other:
        raise wrong_kind(field, name, f"a {package}.{kind.__name__}")
    return found


def wrong_kind(field: str, name: str, wanted: str) -> UserError:
    """The error that what a field names is there, but is something else than what is wanted."""
    return UserError.of(field, name, f"is not {wanted}")


def names_code(path: str) -> bool:
    """Whether a field of a config, by its dotted path, may name code."""
    return any(path == field or path.endswith(f".{field}") for field in FIELDS)


@functools.cache
def _imported(field: str, module: str, attribute: str) -> Any:
    """An attribute of a module, which is imported if need be.

    Raises:
      UserError: it cannot be imported; with the user's frames if the module raised an error.
    """
    name = f"{field}={f'{module}:{attribute}'!r}"
    try:
        source = importlib.import_module(module)
        found = getattr(source, attribute)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the module's code can raise what it likes
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
    return found


def forget_imports() -> None:
    """Has the next look-up read the modules' attributes anew, which a notebook may have changed."""
    _imported.cache_clear()
