"""--config=FILE.py[:ARGUMENT], and --config.FIELD=VALUE for each field of the config that it makes.

Which fields there are is known only when the file has run, so these flags are read before absl
reads the others.
"""

import contextlib
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from rlp.run import config_fields, config_files
from rlp.runtime.config_json import Value, fields
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

flags.disclaim_key_flags()  # --help lists the flag with the program that asked for it

NAME = "config"
_FIELD = re.compile(rf"--?(no)?{NAME}\.([^=]*)(?:=(.*))?", re.DOTALL)
_PARSERS: dict[type, Any] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}


@dataclass(frozen=True)
class Described:
    """What a command line says of the config.

    Attributes:
      spec: "file.py" or "file.py:argument".
      config: what the file makes, with the fields that flags set; locked.
      values: of these fields, by dotted path.
      others: the arguments that do not set fields.
    """

    spec: str
    config: ConfigDict
    values: Mapping[str, Value]
    others: Sequence[str]


class ConfigFlag:
    """The flag --config of a program; `described` is there once the command line has been read."""

    described: Described

    @property
    def value(self) -> ConfigDict:
        """The config."""
        return self.described.config


_CONFIG = ConfigFlag()


def define() -> ConfigFlag:
    """Defines --config and --config.FIELD for a program."""
    meaning = "FILE.py[:ARGUMENT] with get_config(); --config.FIELD=VALUE sets a field"
    flags.DEFINE_string(NAME, None, meaning, required=True)
    return _CONFIG


def read(arguments: Sequence[str]) -> list[str]:
    """Reads the config flags of a program that has called `define`.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The arguments that absl is to read: all but those that set fields.

    Raises:
      UserError: as `describe` does.
    """
    if NAME not in flags.FLAGS:
        return list(arguments)
    if not any(_files(arguments)):  # absl says so, unless help was asked for
        return [argument for argument in arguments if not _FIELD.fullmatch(argument)]
    _CONFIG.described = describe(arguments)
    return list(_CONFIG.described.others)


def describe(arguments: Sequence[str]) -> Described:
    """Runs the file that --config names, and sets the fields that flags give.

    Args:
      arguments: a command line without the program's name.

    Raises:
      UserError: --config is not given once, its file cannot be used, a field does not exist (the
        message has the nearest one), or its value is of another type.
    """
    specs = list(_files(arguments))
    if len(specs) != 1:
        raise UserError(f"--{NAME} is given {len(specs)} times; give it once")
    config = config_files.load(specs[0])
    known = dict(fields(config))
    values, others = _parsed(arguments, known)
    for path in values:
        if own := config_fields.set_by_arms(path, known):
            note = f"note: --{NAME}.{path} does not reach the arms that set their own: "
            print(printable(note + ", ".join(own)), file=sys.stderr)
    return Described(specs[0], config_files.changed(config, values).lock(), values, others)


def _files(arguments: Sequence[str]) -> Iterator[str]:
    """What --config names, each time that it is given."""
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(rf"--?{NAME}(?:=(.*))?", argument, re.DOTALL):
            yield "".join(arguments[position + 1 : position + 2]) if match[1] is None else match[1]


def _parsed(
    arguments: Sequence[str], known: Mapping[str, Value]
) -> tuple[dict[str, Value], list[str]]:
    """The fields that arguments set, and the other arguments."""
    values: dict[str, Value] = {}
    others = []
    left = iter(arguments)
    for argument in left:
        if not (match := _FIELD.fullmatch(argument)):
            others.append(argument)
            continue
        negated, path, text = match.groups()
        kind = config_fields.kind_of(path, known)
        if text is None and kind is not bool:
            text = next(left, "")
        values[path] = _value(path, kind, text, bool(negated))
    return values, others


def _value(path: str, kind: type | None, text: str | None, negated: bool) -> Value:
    """What a text says for a field of a type; None is any type."""
    if negated and (kind is not bool or text is not None):
        expected = config_fields.EXPECTED.get(kind or str)
        message = f"--no{NAME}.{path}: write --{NAME}.{path}=VALUE; it is {expected}"
        raise UserError(message, field=path)
    if text is None:
        return not negated
    if kind is None:
        return _untyped(text)
    wrong = config_fields.wrong_value(path, kind, text, f"--{NAME}.{path}")
    try:
        value = _PARSERS[kind].parse(text)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong
    return value


def _untyped(text: str) -> Value:
    """A number, true or false where the text is one; else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for parser in (_PARSERS[int], _PARSERS[float]):
        with contextlib.suppress(ValueError):
            return parser.parse(text)
    return text
