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

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from launch import output
from rlp.run import config_fields, config_files
from rlp.runtime import signals
from rlp.runtime.allocator import keep_freed_memory
from rlp.runtime.config_json import fields
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

flags.disclaim_key_flags()  # --help lists the config flag with the program that asked for it

_FLAG = "config"
_OUTPUTS: set[str] = set()  # names of the flags that say where to write
_OVERRIDE = re.compile(rf"--?(no)?{_FLAG}\.([^=]*)(?:=(.*))?", re.DOTALL)
_PARSERS: dict[type, flags.ArgumentParser] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}


def define_config() -> flags.FlagHolder[ConfigDict]:
    """Defines --config=FILE.py[:ARGUMENT] and --config.FIELD=VALUE; `.value` is locked."""
    holder = config_flags.DEFINE_config_file(
        _FLAG,
        None,
        "file with get_config(); --config.FIELD=VALUE sets a field",
        lock_config=False,  # before it has its values; `run` locks it
        accept_new_attributes=True,  # options of an objective; others are refused before
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
            arguments = flags.FLAGS(_with_located_file(argv))[1:]
            if _FLAG in flags.FLAGS and (config := flags.FLAGS[_FLAG].value):
                config.lock()
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
    known = dict(fields(config_files.load(files[0])))
    for position, argument in enumerate(arguments):
        if match := _OVERRIDE.fullmatch(argument):
            negated, path, value = match.groups()
            if config_fields.is_option(path):
                if negated or value is None:
                    raise UserError(f"{argument}: write --{_FLAG}.{path}=VALUE", field=path)
                continue
            if path not in known:
                raise config_fields.unknown_field(path, known)
            if value is None and type(known[path]) is not bool:
                value = "".join(arguments[position + 1 : position + 2])
            _check_value(path, type(known[path]), value, negated=bool(negated))
            if own := config_fields.set_by_arms(path, known):
                note = f"note: --{_FLAG}.{path} does not reach the arms that set their own: "
                print(printable(note + ", ".join(own)), file=sys.stderr)


def define_output(
    name: str, meaning: str, default: str | None = None, unless: str = ""
) -> flags.FlagHolder[str]:
    """Defines --name=PATH of what a program writes; `run` refuses an empty path and a URL.

    Args:
      name: of the flag.
      meaning: for --help.
      default: what it is if it is not given; None makes it required.
      unless: name of a boolean flag with which it is not required.
    """
    _OUTPUTS.add(name)
    required = default is None and not unless
    holder: flags.FlagHolder[Any] = flags.DEFINE_string(name, default, meaning, required=required)
    if unless:
        flags.register_multi_flags_validator(
            [name, unless],
            lambda values: values[name] is not None or values[unless],
            f"Flag --{name} must have a value other than None",  # as absl says of required ones
        )
    return holder


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


def config_file() -> str:
    """What --config names on the command line: "file.py" or "file.py:argument"."""
    return next(_config_files(sys.argv[1:]))


def fields_set_by_hand() -> list[str]:
    """Dotted paths of the fields that the command line sets."""
    matches = map(_OVERRIDE.fullmatch, sys.argv[1:])
    return [match[2] for match in matches if match]


def _with_located_file(argv: Sequence[str]) -> list[str]:
    """The command line with the path of the file that --config names."""
    located = list(argv)
    for position, argument in enumerate(argv):
        flag, equals, file = argument.partition("=")
        if flag in (f"-{_FLAG}", f"--{_FLAG}"):
            if equals:
                located[position] = f"{flag}={config_files.located(file)}"
            elif position + 1 < len(argv):
                located[position + 1] = config_files.located(argv[position + 1])
    return located


def _config_files(arguments: Sequence[str]) -> Iterator[str]:
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(rf"--?{_FLAG}(?:=(.*))?", argument):
            yield "".join(arguments[position + 1 : position + 2]) if match[1] is None else match[1]


def _check_value(path: str, kind: type, value: str | None, *, negated: bool) -> None:
    if negated and (kind is not bool or value is not None):
        expected = config_fields.EXPECTED[kind]
        raise UserError(
            f"--no{_FLAG}.{path}: write --{_FLAG}.{path}=VALUE; it is {expected}", field=path
        )
    if value is None:  # --config.flag or --noconfig.flag
        return
    wrong = config_fields.wrong_value(path, kind, value, f"--{_FLAG}.{path}")
    try:
        parsed = _PARSERS[kind].parse(value)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise wrong
