"""What the programs of this folder share: a start that refuses bad input with one line, at once.

A program defines its flags, then hands its main function to `run`:

    _CONFIG = program.define_config()
    _WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)

    def main(arguments: list[str]) -> None:
        from rlp.run import loop  # jax is imported only when the command line has proved right

    if __name__ == "__main__":
        program.run(main)

Fields of the config are set by flags such as --config.rlp.group_size=16. ml_collections parses
them; they are checked here before, since it answers an unknown field with a traceback.
"""

import difflib
import importlib.util
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from configs import default
from launch import output
from rlp.runtime import signals
from rlp.runtime.allocator import keep_freed_memory
from rlp.runtime.config_json import fields
from rlp.runtime.display import printable
from rlp.runtime.errors import UserCodeError, UserError
from rlp.runtime.user_code import frames_of

flags.disclaim_key_flags()  # --help lists the config flag with the program that asked for it

_FLAG = "config"
_OUTPUTS: set[str] = set()  # names of the flags that say where to write
_OVERRIDE = re.compile(rf"--?(no)?{_FLAG}\.([^=]*)(?:=(.*))?", re.DOTALL)
_PARSERS: dict[type, tuple[flags.ArgumentParser, str]] = {
    bool: (flags.BooleanParser(), "true or false"),
    int: (flags.IntegerParser(), "a whole number"),
    float: (flags.FloatParser(), "a finite number"),
    str: (flags.ArgumentParser(), "a text"),
}


def define_config() -> flags.FlagHolder[ConfigDict]:
    """Defines --config=FILE.py[:ARGUMENT] and --config.FIELD=VALUE; `.value` is locked."""
    holder = config_flags.DEFINE_config_file(
        _FLAG, None, "file with get_config(); --config.FIELD=VALUE sets a field"
    )
    flags.mark_flag_as_required(_FLAG)
    return holder


def run(main: Callable[[list[str]], None], most_arguments: int | None = 0) -> None:
    """Runs a program and exits: with 2, after one line on stderr, if a UserError was raised.

    Args:
      main: is called with the arguments that are not flags.
      most_arguments: how many of these the program takes; None for any number.
    """

    def parse_flags(argv: list[str]) -> list[str]:
        for given in argv:
            try:
                given.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"the argument {given!a} is not valid UTF-8") from error
        try:
            if _FLAG in flags.FLAGS:
                check_config_flags(flags.FLAGS.read_flags_from_files(argv, force_gnu=False)[1:])
            arguments = flags.FLAGS(argv)[1:]
            for name in _OUTPUTS:
                if name in flags.FLAGS and flags.FLAGS[name].present:
                    check_output(name, flags.FLAGS[name].value or "")
        except flags.Error as error:
            unset = re.search(r"Flag (--\S+) must have a value other than None", str(error))
            raise UserError(f"{unset[1]} is missing" if unset else str(error)) from error
        if most_arguments is not None and (unexpected := arguments[most_arguments:]):
            raise UserError(f"unexpected argument {unexpected[0]!r}; flags begin with --")
        return arguments

    def start(arguments: list[str]) -> None:
        output.prepare()
        main(arguments)

    signals.install()
    keep_freed_memory()
    with output.ending():
        app.run(start, flags_parser=parse_flags)


def check_config_flags(arguments: Sequence[str]) -> None:
    """Loads the file that --config names, and checks every --config.FIELD=VALUE against it.

    Args:
      arguments: the command line without the program's name.

    Raises:
      UserError: one line that says what is wrong, with the nearest valid name of an unknown field.
    """
    files = list(_config_files(arguments))
    if not files:
        return  # absl says so, as of any flag that is missing, unless help was asked for
    if len(files) > 1:
        raise UserError(f"--{_FLAG} is given {len(files)} times; give it once")
    known = dict(fields(load_config_file(files[0])))
    _check_names(files[0], known)
    for position, argument in enumerate(arguments):
        if match := _OVERRIDE.fullmatch(argument):
            negated, path, value = match.groups()
            if path not in known:
                raise UserError(unknown_field(path, known))
            if value is None and type(known[path]) is not bool:
                value = "".join(arguments[position + 1 : position + 2])
            _check_value(path, type(known[path]), value, negated=bool(negated))
            if own := set_by_arms(path, known):
                note = f"note: --{_FLAG}.{path} does not reach the arms that set their own: "
                print(printable(note + ", ".join(own)), file=sys.stderr)


def define_output(name: str, meaning: str, default: str | None = None) -> flags.FlagHolder[str]:
    """Defines --name=PATH of what a program writes; `run` refuses an empty path and a URL.

    Args:
      name: of the flag.
      meaning: for --help.
      default: what it is if it is not given; None makes it required.
    """
    _OUTPUTS.add(name)
    if default is None:
        return flags.DEFINE_string(name, None, meaning, required=True)
    return flags.DEFINE_string(name, default, meaning)


def check_output(name: str, path: str) -> None:
    """Refuses the value of a flag that names a place to write to, if it is empty or a URL."""
    if not path.strip():
        raise UserError(f"--{name} is empty; name a place to write to (is a variable not set?)")
    if re.match(r"[a-z][a-z0-9+.-]*:/", path, re.IGNORECASE):
        what = "a workdir is a folder" if name == "workdir" else "this is a path"
        raise UserError(
            f"--{name}={path}: {what} of a file system, where files are renamed and appended to; "
            "mount the bucket (gcsfuse) and name the mounted folder, see docs/pods.md"
        )


def set_by_arms(path: str, known: Iterable[str]) -> list[str]:
    """The fields of an experiment's arms that stand over the field `path`."""
    return [name for name in known if re.fullmatch(rf"arms\.[^.]+\.{re.escape(path)}", name)]


def config_file() -> str:
    """What --config names on the command line: "file.py" or "file.py:argument"."""
    return next(_config_files(sys.argv[1:]))


def fields_set_by_hand() -> list[str]:
    """Dotted paths of the fields that the command line sets."""
    matches = map(_OVERRIDE.fullmatch, sys.argv[1:])
    return [match[2] for match in matches if match]


def _check_names(file: str, known: Collection[str]) -> None:
    """Refuses a config file that adds fields to those of a run, or lacks some of them.

    An experiment has the fields of a run, and under arms.NAME those that an arm changes.
    """
    valid = dict(fields(default.get_config()))
    for path in known:
        if (plain := re.sub(r"^arms\.[^.]*\.", "", path)) not in valid:
            raise UserError(f"{file}: {unknown_field(plain, valid)}")
    if missing := [path for path in valid if path not in known]:
        raise UserError(f"{file} lacks {', '.join(missing)}; begin with default.get_config()")


def _config_files(arguments: Sequence[str]) -> Iterator[str]:
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(rf"--?{_FLAG}(?:=(.*))?", argument):
            yield "".join(arguments[position + 1 : position + 2]) if match[1] is None else match[1]


def check_typed_value(path: str, kind: type, value: object) -> None:
    """Refuses a value that a field of this type cannot take; whole numbers pass for finite ones.

    Raises:
      UserError: names the field, what it must be, and the value.
    """
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{path} must be {_PARSERS[kind][1]}; {value!r} is not")


def _check_value(path: str, kind: type, value: str | None, *, negated: bool) -> None:
    parser, expected = _PARSERS[kind]
    if negated and (kind is not bool or value is not None):
        raise UserError(f"--no{_FLAG}.{path}: write --{_FLAG}.{path}=VALUE; it is {expected}")
    if value is None:  # --config.flag or --noconfig.flag
        return
    try:
        parsed = parser.parse(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"--{_FLAG}.{path} must be {expected}; {value!r} is not") from error
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise UserError(f"--{_FLAG}.{path} must be {expected}; {value!r} is not")


def unknown_field(path: str, known: Collection[str]) -> str:
    """One line on a field that is not in `known` (dotted paths), and what was probably meant."""
    if inner := [field for field in known if field.startswith(path + ".")]:
        return f"{path} is a group of fields; set them one by one: {', '.join(inner)}"
    if meant := nearest_fields(path, known):
        return f"the config has no field {path!r}; did you mean {' or '.join(meant)}?"
    group = path.rpartition(".")[0]
    while group and not any(field.startswith(group + ".") for field in known):
        group = group.rpartition(".")[0]
    start = group + "." if group else ""
    names = dict.fromkeys(f[len(start) :].split(".")[0] for f in known if f.startswith(start))
    return f"the config has no field {path!r}; {group or 'it'} has {', '.join(names)}"


def nearest_fields(path: str, known: Collection[str]) -> list[str]:
    """The fields of `known` that `path` was probably meant to be: one, none, or several as likely.

    The last name of a path decides, so that a field is also found under another group than the one
    given; between equal names, the groups do.
    """

    def likeness(field: str) -> tuple[float, float]:
        (group, _, name), (given_group, _, given_name) = field.rpartition("."), path.rpartition(".")
        return _alike(given_name, name), _alike(given_group, group)

    scores = {field: likeness(field) for field in known}
    best = max(scores.values())
    return [field for field, score in scores.items() if score == best and best[0] >= 0.6]


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def load_config_file(spec: str) -> ConfigDict:
    """What get_config() in the file `spec` returns, or get_config(argument) for "file:argument".

    Raises:
      UserError: the file is missing or cannot be run, it does not take or refuses the argument,
        or what it returns is not a config.
    """
    config = call_in_file(spec, "get_config")
    if not isinstance(config, ConfigDict):
        name = spec.partition(":")[0]
        raise UserError(f"get_config of {name} returns no ConfigDict but {type(config).__name__}")
    return config


def call_in_file(spec: str, function: str) -> Any:
    """What a function of the config file `spec` returns: function(), or function(argument) for
    "file:argument".

    Raises:
      UserError: the file is missing or cannot be run, it has no such function, or the function
        does not take or refuses the argument.
    """
    name, colon, argument = spec.partition(":")
    make = getattr(_run_file(name), function, None)
    if not callable(make):
        raise UserError(f"{name} has no function {function}")
    arguments = [argument] if colon else []
    try:
        inspect.signature(make).bind(*arguments)
    except TypeError as error:
        if colon:
            problem = f"takes no argument, but {argument!r} was given; write --{_FLAG}={name}"
        else:
            problem = f"needs an argument; write --{_FLAG}={name}:ARGUMENT"
        raise UserError(f"{name} {problem}") from error
    try:
        made = make(*arguments)
        return list(made) if inspect.isgenerator(made) else made  # its errors are the file's
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise _where(name, error, f" for {argument!r}" if colon else "") from error


def defines(name: str, function: str) -> bool:
    """Whether the config file `name` has a function of that name.

    Raises:
      UserError: the file is missing or cannot be run.
    """
    return callable(getattr(_run_file(name), function, None))


def _run_file(name: str) -> ModuleType:
    path = Path(name)
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
        raise _where(name, error, "") from error
    return module


def _where(name: str, error: BaseException, circumstance: str) -> UserCodeError:
    """An error in the config file `name`: the line of that file, the message, the frames."""
    path = Path(name).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    at = f", line {line}" if line else ""
    message = str(error).split("\n")[0]
    return UserCodeError(
        f"{name}{at}{circumstance}: {type(error).__name__}: {message}", frames_of(error, name)
    )
