"""Errors of code that the user brought: one line that names it, and the frames of that code."""

import contextlib
import functools
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from rlp.runtime.errors import UserCodeError, UserError

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]  # of the repository
_OURS = tuple(ROOT / name for name in ("rlp", "models", "launch"))
_STANDARD = Path(sysconfig.get_paths()["stdlib"]).resolve()
_INSTALLED = ("site-packages", "dist-packages")


@contextlib.contextmanager
def running(name: str, file: str | None = None) -> Iterator[None]:
    """Turns errors of the user's code into a UserCodeError.

    Args:
      name: what runs, as in "objective='mine:OBJECTIVE'".
      file: where it is defined; frames below the folder of this file are always shown.
    """
    try:
        yield
    except (UserError, MemoryError):  # who limits its memory knows what that means
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise UserCodeError(f"{name} raised {reason}", frames_of(error, file)) from error


def watched(name: str, function: Callable[P, T], file: str | None) -> Callable[P, T]:
    """A function of the user's, as `running` runs it."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with running(name, file):
            return function(*args, **kwargs)

    return run


def file_of(module: str) -> str | None:
    """The file of a module that was imported; None where it has none."""
    return getattr(sys.modules.get(module), "__file__", None)


def frames_of(error: BaseException, file: str | None = None) -> str:
    """The lines of an error's traceback that lie in the user's code: neither in this project nor in
    a library. `file` is as in `running`."""
    home = Path(file).resolve().parent if file else None
    frames = traceback.extract_tb(error.__traceback__)
    return "".join(traceback.format_list([f for f in frames if _is_users(f.filename, home)]))


def _is_users(filename: str, home: Path | None) -> bool:
    path = Path(filename).resolve()
    if filename.startswith("<"):  # importlib, or code that a library made
        return False
    if home is not None and path.is_relative_to(home):
        return True
    library = path.is_relative_to(_STANDARD) or any(name in path.parts for name in _INSTALLED)
    return not library and not any(path.is_relative_to(folder) for folder in _OURS)
