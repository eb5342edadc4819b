"""Resolve a config field that names a built-in object or an object in a module of the user."""

import functools
import importlib
import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
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


def find_in_file(field: str, name: str, kind: type[T]) -> T:
    """Return an object of a Python file: "<file.py>:<name>", or "<file.py>" for the only one.

    The import runs the code of the file. A file from outside this repository is logged once.

    Args:
      field: What names the object, for messages.
      name: The value of the field.
      kind: The class of the object.

    Raises:
      UserError: If there is no such file or object, the file cannot be imported, or it has several
        objects of this class and `name` does not say which.
    """
    file, _, attribute = name.partition(":")
    module = _run_file(field, file)
    if attribute:
        value = getattr(module, attribute, None)
        if not isinstance(value, kind):
            raise wrong_kind(field, name, f"a {kind.__name__} of that file")
        return value
    values = {key: value for key, value in vars(module).items() if isinstance(value, kind)}
    if len({id(value) for value in values.values()}) != 1:
        named = ", ".join(f"{file}:{key}" for key in values)
        choice = f"; use one of {named}" if values else ""
        raise UserError.of(
            field, name, f"has {len(values) or 'no'} objects of class {kind.__name__}{choice}"
        )
    return next(iter(values.values()))


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


@functools.cache
def _run_file(field: str, file: str) -> ModuleType:
    """Import a Python file.

    Raises:
      UserError: If it cannot be imported; with the user's frames if its code raised an error.
    """
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UserError.of(field, file, "does not exist; name a Python file")
    spec = importlib.util.spec_from_file_location(f"rlp_user_file {path}", path)
    if spec is None or spec.loader is None:
        raise UserError.of(field, file, "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the code of the file can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise UserCodeError(
            f"{field}={file!r} cannot be imported: {reason}",
            user_code.frames_of(error, str(path)),
            field=field,
            value=file,
        ) from error
    if not path.is_relative_to(user_code.ROOT):
        LOGGER.info("%s %s is imported from %s", field, file, path)
    return module


def forget_imports() -> None:
    """Clear the cache of imported objects, which a notebook may have changed since."""
    _imported.cache_clear()
    _run_file.cache_clear()
