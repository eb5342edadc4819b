"""Import names of objects that Python code passes as config fields, such as an objective.

config.json records the name, "<module>:<name>", by which worker processes and resumed runs import
the object. The name must therefore lead back to the object, in a module that another process can
import.
"""

import importlib.util
import sys
from types import ModuleType

from rlp.runtime import lookup
from rlp.runtime.errors import UserError

CURE = "define it in a module (a separate file such as my_code.py) and import it from there"


def name_of(field: str, value: object) -> str:
    """Return the "<module>:<name>" by which an object can be imported.

    Args:
      field: The config field that will contain the name, for messages.
      value: A function, a class, or an object that is the value of a module variable.

    Returns:
      The import name.

    Raises:
      UserError: If another process could not import the object: a lambda, a local function, an
        object defined in a notebook or script, or an object that is not a module variable.

    Example::

        import my_code
        name_of("objective", my_code.MINE)  # "my_code:MINE"
    """
    name = getattr(value, "__qualname__", "")
    home = getattr(value, "__module__", None) if name else None
    if "<lambda>" in name:
        raise UserError(f"{field} is a lambda, which another process cannot import; {CURE}")
    if "<locals>" in name:
        raise UserError(
            f"{field} is the local function {name.rpartition('.')[2]!r}, which another process "
            f"cannot import; {CURE}"
        )
    if home is None or _attribute(sys.modules.get(home), name) is not value:
        home, name = _variable(field, value)
    if home == "__main__":
        raise UserError(
            f"{field} is defined in the notebook or script itself ({name}), which another process "
            f"cannot import; {CURE}"
        )
    if not _can_be_imported(home):
        raise UserError(f"{field} is in the module {home!r}, which has no file; {CURE}")
    lookup.forget_imports()  # the module may have been reloaded
    return f"{home}:{name}"


def _attribute(module: ModuleType | None, name: str) -> object:
    """Return an attribute of a module; None for a dotted name, which a config cannot refer to."""
    return None if module is None or "." in name else getattr(module, name, None)


def _variable(field: str, value: object) -> tuple[str, str]:
    """Find the module and the variable whose value is an object.

    The notebook or script is searched last, because multiprocessing also imports it under another
    name.

    Raises:
      UserError: If no module has such a variable.
    """
    main = sys.modules["__main__"]
    others = [(home, module) for home, module in sys.modules.items() if module is not main]
    for home, module in [*others, ("__main__", main)]:
        for name, attribute in list(getattr(module, "__dict__", {}).items()):
            if attribute is value and not name.startswith("_"):
                return home, name
    raise UserError(
        f"{field} is an object of type {type(value).__name__} that is not a variable of a module, "
        f"so another process cannot import it; {CURE}"
    )


def _can_be_imported(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
