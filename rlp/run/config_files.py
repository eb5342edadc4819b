"""Configs made from a file and from overrides, for programs and notebooks alike.

    config = load("configs/text.py:rlp")
    config = override(config, {"rlp.group_size": 4, "optimizer.learning_rate": 1e-4})

Neither needs jax. Whether a run can use the values is checked by `rlp.run.checks`.
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
    """The config that a file makes, with the fields of a run or an experiment.

    Args:
      spec: "file.py" for what its get_config() returns, "file.py:argument" for
        get_config(argument). A file that is not there is looked for in this repository, as in
        "configs/text.py".

    Raises:
      UserError: the file is missing or cannot be run, it does not take or refuses the argument, or
        what it returns is not a config, or is one with unknown or missing fields.
    """
    config = call(spec, "get_config")
    if not isinstance(config, ConfigDict):
        name = spec.partition(":")[0]
        raise UserError(f"get_config of {name} returns no ConfigDict but {type(config).__name__}")
    check_names(spec, dict(fields(config)))
    return config


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with other values of some fields.

    Args:
      config: of a run or an experiment.
      values: dotted path of each field to its value; `arms.NAME.FIELD` is a field that an arm sets.

    Raises:
      UserError: there is no such field (the message has the nearest one), its value is of another
        type, or every arm of an experiment sets its own.
    """
    known = dict(fields(config))
    for path in values:
        check_reaches_an_arm(path, known, config.get("arms", ()))
    return changed(config, {path: typed(known, path, value) for path, value in values.items()})


def changed(config: ConfigDict, values: Mapping[str, Value]) -> ConfigDict:
    """A copy of a config with other values, which have been checked, of some fields.

    Args:
      config: of a run or an experiment.
      values: dotted path of each field to its value; groups of options are made if need be.
    """
    made = copy.deepcopy(config)
    with made.unlocked():
        for path, value in values.items():
            *groups, name = path.split(".")
            place = made
            for group in groups:
                if group not in place:
                    place[group] = ConfigDict()
                place = place[group]
            place[name] = value
    return made


def call(spec: str, function: str) -> Any:
    """What a function of a config file returns.

    Args:
      spec: "file.py" for function(), "file.py:argument" for function(argument).
      function: its name; what a generator yields comes as a list.

    Raises:
      UserError: the file is missing or cannot be run, it has no such function, or the function
        does not take or refuses the argument.
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
            problem = f"takes no argument, but {argument!r} was given; write {name}"
        else:
            problem = f"needs an argument; write {name}:ARGUMENT"
        raise UserError(f"{name} {problem}") from error
    try:
        made = make(*arguments)
        return list(made) if inspect.isgenerator(made) else made  # its errors are the file's
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _located(name, error, f" for {argument!r}" if colon else "") from error


def defines(name: str, function: str) -> bool:
    """Whether the config file `name` has a function of that name.

    Raises:
      UserError: the file is missing or cannot be run.
    """
    return callable(getattr(_run(name), function, None))


def _run(name: str) -> ModuleType:
    path = Path(located(name))
    if not path.is_file():
        near = difflib.get_close_matches(name, [str(p) for p in path.parent.glob("*.py")], 1, 0.5)
        raise UserError(f"no config file {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
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
    """ "file.py" or "file.py:argument" with the path of the file: in the current folder, or else in
    this repository, so that its configs can be named from any folder."""
    name, colon, argument = spec.partition(":")
    ours = ROOT / name
    path = ours if ours.is_file() and not Path(name).is_file() else Path(name)
    return f"{path}{colon}{argument}"


def _located(name: str, error: BaseException, circumstance: str) -> UserCodeError:
    """An error in the config file `name`: the line of that file, the message, the frames."""
    path = Path(located(name)).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    at = f", line {line}" if line else ""
    message = str(error).split("\n")[0]
    return UserCodeError(
        f"{name}{at}{circumstance}: {type(error).__name__}: {message}", frames_of(error, str(path))
    )
