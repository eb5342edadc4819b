"""Load configs from Python files and apply overrides, for programs and notebooks.

    config = load("configs/text.py:rlp")
    config = override(config, {"rlp.group_size": 4, "optimizer.learning_rate": 1e-4})

Neither imports JAX. `rlp.run.checks` checks whether a run can use the values.
"""

import copy
import difflib
import importlib.util
import inspect
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from rlp.run.config_fields import check_names, check_reaches_an_arm, typed
from rlp.runtime.config_json import Value, fields
from rlp.runtime.errors import UserCodeError, UserError
from rlp.runtime.user_code import ROOT, frames_of


def load(spec: str) -> ConfigDict:
    """Load the config of a run or an experiment from a config file.

    Args:
      spec: "file.py" for its get_config(), "file.py:argument" for get_config(argument). If the file
        does not exist in the current folder, it is looked up in this repository, as in
        "configs/text.py".

    Raises:
      UserError: If the file is missing or fails, does not accept the argument, or does not return a
        ConfigDict with exactly the known fields.
    """
    config = call(spec, "get_config")
    if not isinstance(config, ConfigDict):
        name = spec.partition(":")[0]
        raise UserError(
            f"get_config of {name} must return a ConfigDict, not {type(config).__name__}"
        )
    check_names(spec, dict(fields(config)))
    return config


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of a config with some fields set to other values.

    Args:
      config: The config of a run or an experiment.
      values: Dotted path of each field -> its value; `arms.NAME.FIELD` is a field of an arm.

    Raises:
      UserError: If a field does not exist (the message suggests the nearest one), if a value has
        the wrong type, or if every arm of an experiment overrides the field.
    """
    known = dict(fields(config))
    for path in values:
        check_reaches_an_arm(path, known, config.get("arms", ()))
    return changed(config, {path: typed(known, path, value) for path, value in values.items()})


def changed(config: ConfigDict, values: Mapping[str, Value]) -> ConfigDict:
    """Return a copy of a config with some fields set to values that have been checked.

    Args:
      config: The config of a run or an experiment.
      values: Dotted path of each field -> its value; missing groups of options are created.
    """
    copied = copy.deepcopy(config)
    with copied.unlocked():
        for path, value in values.items():
            *groups, name = path.split(".")
            node = copied
            for group in groups:
                if group not in node:
                    node[group] = ConfigDict()
                node = node[group]
            node[name] = value
    return copied


def call(spec: str, function: str) -> Any:
    """Call a function of a config file and return its result.

    Args:
      spec: "file.py" for function(), "file.py:argument" for function(argument).
      function: The name of the function; the items of a generator are returned as a list.

    Raises:
      UserError: If the file is missing or fails, or if the function does not exist or does not
        accept the argument.
    """
    name, colon, argument = spec.partition(":")
    make = getattr(_run(name), function, None)
    if not callable(make):
        raise UserError(f"{name} has no function {function}")
    arguments = [argument] if colon else []
    try:
        inspect.signature(make).bind(*arguments)
    except TypeError as error:
        if colon:
            problem = f"does not take an argument, but {argument!r} was given; write {name}"
        else:
            problem = f"needs an argument; write {name}:ARGUMENT"
        raise UserError(f"{name} {problem}") from error
    try:
        result = make(*arguments)
        return list(result) if inspect.isgenerator(result) else result  # here, to catch its errors
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _located(name, error, f" for {argument!r}" if colon else "") from error


def defines(name: str, function: str) -> bool:
    """Return whether the config file `name` defines a function.

    Raises:
      UserError: If the file is missing or fails.
    """
    return callable(getattr(_run(name), function, None))


def _run(name: str) -> ModuleType:
    path = Path(located(name))
    if not path.is_file():
        near = difflib.get_close_matches(name, [str(p) for p in path.parent.glob("*.py")], 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"the config file {name!r} does not exist{hint}")
    spec = importlib.util.spec_from_file_location("config_file", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {name!r} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _located(name, error, "") from error
    return module


def located(spec: str) -> str:
    """Resolve the file of "file.py" or "file.py:argument".

    A file that does not exist in the current folder is looked up in this repository, so that its
    configs can be named from any folder.
    """
    name, colon, argument = spec.partition(":")
    ours = ROOT / name
    path = ours if ours.is_file() and not Path(name).is_file() else Path(name)
    return f"{path}{colon}{argument}"


def _located(name: str, error: BaseException, circumstance: str) -> UserCodeError:
    """Return the error for a failing config file, with its line, the message and the frames."""
    path = Path(located(name)).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    at = f", line {line}" if line else ""
    message = str(error).split("\n")[0]
    return UserCodeError(
        f"{name}{at}{circumstance}: {type(error).__name__}: {message}", frames_of(error, str(path))
    )
