"""Start of all programs of this folder: parse flags, and refuse bad input with one line.

A program defines its flags, then passes its main function to `run`:

    _CONFIG = config_flags.define()
    _WORKDIR = define_output("workdir", "folder of the run")

    def main(arguments: list[str]) -> None:
        from rlp.run import loop  # imports jax, after the flags were checked

    if __name__ == "__main__":
        program.run(main)

Fields of the config are set by flags such as --config.rlp.group_size=16 (`launch.config_flags`).
"""

import re
from collections.abc import Callable
from typing import Any

from absl import app, flags

from launch import config_flags, output
from rlp.runtime import signals
from rlp.runtime.allocator import keep_freed_memory
from rlp.runtime.errors import UserError

flags.disclaim_key_flags()  # --help lists the flags below with the program that defines them

_OUTPUTS: set[str] = set()  # names of the flags that are paths to write to


def run(main: Callable[[list[str]], None], most_arguments: int | None = 0) -> None:
    """Run a program and exit, with status 2 and one line on stderr if it raises a UserError.

    Args:
      main: called with the arguments that are not flags.
      most_arguments: maximum number of these; None for any number.
    """

    def parse_flags(argv: list[str]) -> list[str]:
        for argument in argv:
            try:
                argument.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"the argument {argument!a} is not valid UTF-8") from error
        try:
            words = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
            arguments = flags.FLAGS([words[0], *config_flags.read(words[1:])])[1:]
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
        verbosity = flags.FLAGS["verbosity"]
        output.prepare(verbosity.value if verbosity.present else None)
        main(arguments)

    flags.FLAGS["verbosity"].parser = output.Verbosity()
    flags.FLAGS["verbosity"].help = output.Verbosity.HELP
    signals.install()
    keep_freed_memory()
    with output.ending():
        app.run(start, flags_parser=parse_flags)


def define_output(
    name: str, meaning: str, default: str | None = None, unless: str = ""
) -> flags.FlagHolder[str]:
    """Define a flag --name=PATH for an output; `run` refuses an empty path and a URL.

    Args:
      name: name of the flag.
      meaning: help text.
      default: default value; None makes the flag required.
      unless: name of a boolean flag; if that is set, this flag is not required.
    """
    _OUTPUTS.add(name)
    required = default is None and not unless
    holder: flags.FlagHolder[Any] = flags.DEFINE_string(name, default, meaning, required=required)
    if unless:
        flags.register_multi_flags_validator(
            [name, unless],
            lambda values: values[name] is not None or values[unless],
            f"Flag --{name} must have a value other than None",  # absl's message for required flags
        )
    return holder


def check_output(name: str, path: str) -> None:
    """Raise a UserError if the value of an output flag is empty or a URL."""
    if not path.strip():
        raise UserError(f"--{name} is empty; set it to a path to write to (is a variable not set?)")
    if re.match(r"[a-z][a-z0-9+.-]*:/", path, re.IGNORECASE):
        what = "a workdir must be a folder" if name == "workdir" else "this must be a path"
        raise UserError(
            f"--{name}={path}: {what} in a file system, where files are renamed and appended to; "
            "mount the bucket (gcsfuse) and use the mounted folder, see docs/pods.md"
        )
