"""Objects in the place of names: what config.json records of an objective that Python passes.

A worker process and a run that resumes find an object by its name, "<module>:<name>". So the name
of an object must lead back to it, from a module that another process can import.
"""

import importlib.util
import sys
from types import ModuleType

from rlp.runtime import lookup
from rlp.runtime.errors import UserError

CURE = "put it into a module, a file of its own such as my_code.py, and import it from there"


def name_of(field: str, value: object) -> str:
    """The "<module>:<name>" by which an object is imported.

    Args:
      field: of the config that is to name it, for messages.
      value: a function, a class, or an object that a variable of a module holds.

    Raises:
      UserError: another process could not import it: a lambda, a local function, what a notebook or
        a script defines itself, or an object that no module has a name for.
    """
    name = getattr(value, "__qualname__", "")
    home = getattr(value, "__module__", None) if name else None
    if "<lambda>" in name:
        raise UserError(f"{field} is a lambda, which no other process could import; {CURE}")
    if "<locals>" in name:
        raise UserError(
            f"{field} is the local function {name.rpartition('.')[2]!r}, which no other process "
            f"could import; {CURE}"
        )
    if home is None or _attribute(sys.modules.get(home), name) is not value:
        home, name = _variable(field, value)
    if home == "__main__":
        raise UserError(
            f"{field} is defined in the notebook or script itself ({name}), which no other process "
            f"could import; {CURE}"
        )
    if not _can_be_imported(home):
        raise UserError(f"{field} is in the module {home!r}, which has no file; {CURE}")
    lookup.forget_imports()  # a module may have been reloaded since
    return f"{home}:{name}"


def _attribute(module: ModuleType | None, name: str) -> object:
    """What a module calls so; dots lead into classes, which names of a config do not."""
    return None if module is None or "." in name else getattr(module, name, None)


def _variable(field: str, value: object) -> tuple[str, str]:
    """The module and the variable that hold an object; the notebook or script itself, which
    multiprocessing knows by another name as well, comes last.

    Raises:
      UserError: there is none.
    """
    main = sys.modules["__main__"]
    others = [(home, module) for home, module in sys.modules.items() if module is not main]
    for home, module in [*others, ("__main__", main)]:
        for name, held in list(getattr(module, "__dict__", {}).items()):
            if held is value and not name.startswith("_"):
                return home, name
    raise UserError(
        f"{field} is a {type(value).__name__} that no module has a name for, so no other process "
        f"could import it; {CURE}"
    )


def _can_be_imported(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
