"""--config=FILE.py[:ARGUMENT], and --config.FIELD=VALUE for each field of its config.

The fields are known only after the file has run, so these flags are parsed before absl parses the
others.
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

flags.disclaim_key_flags()  # --help lists the flag with the program that defines it

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
    """The config of a command line.

    Attributes:
      spec: "file.py" or "file.py:argument".
      config: the config of the file, with the fields that flags set; locked.
      values: the values of these fields, by dotted path.
      others: the remaining arguments.
    """

    spec: str
    config: ConfigDict
    values: Mapping[str, Value]
    others: Sequence[str]


class ConfigFlag:
    """The flag --config of a program; `described` is set when the command line is parsed."""

    described: Described

    @property
    def value(self) -> ConfigDict:
        """The config."""
        return self.described.config


_CONFIG = ConfigFlag()


def define() -> ConfigFlag:
    """Define --config and --config.FIELD for a program."""
    meaning = "FILE.py[:ARGUMENT] with get_config(); --config.FIELD=VALUE sets a field"
    flags.DEFINE_string(NAME, None, meaning, required=True)
    return _CONFIG


def read(arguments: Sequence[str]) -> list[str]:
    """Parse the config flags of a program that has called `define`.

    Args:
      arguments: the command line without the program name.

    Returns:
      The arguments for absl to parse: all but those that set fields.

    Raises:
      UserError: See `describe`.
    """
    if NAME not in flags.FLAGS:
        return list(arguments)
    if not any(_files(arguments)):  # absl reports that, unless --help is given
        return [argument for argument in arguments if not _FIELD.fullmatch(argument)]
    _CONFIG.described = describe(arguments)
    return list(_CONFIG.described.others)


def describe(arguments: Sequence[str]) -> Described:
    """Run the file of --config, and set the fields that flags give.

    Args:
      arguments: a command line without the program name.

    Raises:
      UserError: --config is not given exactly once, its file cannot be used, a field does not exist
        (the message suggests the nearest one), or its value has the wrong type.
    """
    specs = list(_files(arguments))
    if len(specs) != 1:
        raise UserError(f"--{NAME} is given {len(specs)} times; give it once")
    config = config_files.load(specs[0])
    known = dict(fields(config))
    values, others = _parsed(arguments, known)
    for path in values:
        if overriding := config_fields.set_by_arms(path, known):
            note = f"note: --{NAME}.{path} does not affect arms that set this field: "
            print(printable(note + ", ".join(overriding)), file=sys.stderr)
    return Described(specs[0], config_files.changed(config, values).lock(), values, others)


def _files(arguments: Sequence[str]) -> Iterator[str]:
    """Yield every value of --config."""
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(rf"--?{NAME}(?:=(.*))?", argument, re.DOTALL):
            yield "".join(arguments[position + 1 : position + 2]) if match[1] is None else match[1]


def _parsed(
    arguments: Sequence[str], known: Mapping[str, Value]
) -> tuple[dict[str, Value], list[str]]:
    """Return the fields that arguments set, and the other arguments."""
    values: dict[str, Value] = {}
    others = []
    remaining = iter(arguments)
    for argument in remaining:
        if not (match := _FIELD.fullmatch(argument)):
            others.append(argument)
            continue
        negated, path, text = match.groups()
        kind = config_fields.kind_of(path, known)
        if text is None and kind is not bool:
            text = next(remaining, "")
        values[path] = _value(path, kind, text, bool(negated))
    return values, others


def _value(path: str, kind: type | None, text: str | None, negated: bool) -> Value:
    """Parse the text of a value for a field of a type; None is any type."""
    if negated and (kind is not bool or text is not None):
        expected = config_fields.EXPECTED.get(kind or str)
        message = f"--no{NAME}.{path}: use --{NAME}.{path}=VALUE; the value must be {expected}"
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
    """Return the text as a number or bool if it is one, otherwise as it is."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for parser in (_PARSERS[int], _PARSERS[float]):
        with contextlib.suppress(ValueError):
            return parser.parse(text)
    return text
