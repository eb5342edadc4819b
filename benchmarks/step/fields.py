"""A dataclass of sizes whose fields are flags: default, help and range are said once. No jax."""

import argparse
import dataclasses
import math
from typing import Any

from rlp.runtime.errors import UserError


def flag(default: Any, help_: str, **metadata: Any) -> Any:
    """A field; metadata: `least` (1), `most`, `choices`, and what the dataclass itself asks."""
    return dataclasses.field(default=default, metadata={"help": help_, "least": 1} | metadata)


def check_ranges(sizes: Any) -> None:
    """Refuses numbers out of range.

    Raises:
      UserError: naming the flag.
    """
    for field in dataclasses.fields(sizes):
        if field.type is not str:
            _check_range(field, getattr(sizes, field.name))


def arguments(sizes: Any) -> list[str]:
    """The flags that make these sizes."""
    return [f"--{name}={value}" for name, value in dataclasses.asdict(sizes).items()]


def add_flags(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Defines a flag for every field of the dataclass `kind`."""
    group = parser.add_argument_group("workload")
    for field in dataclasses.fields(kind):
        group.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            choices=field.metadata.get("choices"),
            help=field.metadata["help"],
        )


def values(flags: argparse.Namespace, kind: Any) -> dict[str, Any]:
    """Of parsed flags, the fields of `kind`."""
    return {field.name: getattr(flags, field.name) for field in dataclasses.fields(kind)}


def counts(kind: Any) -> tuple[str, ...]:
    """The fields that are whole numbers."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.type is int)


def varied(sizes: Any, over: str, text: str) -> list[Any]:
    """The sizes with each of the whole numbers of a flag like --values=1,2,4 for the field `over`.

    Raises:
      UserError: they are no numbers, do not ascend, or make no sense as sizes.
    """
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--values={text!r} are no whole numbers with commas between") from error
    if found != sorted(set(found)):
        raise UserError(f"--values={text!r} must ascend")
    return [dataclasses.replace(sizes, **{over: value}) for value in found]


def _check_range(field: dataclasses.Field, value: float) -> None:
    least, most = field.metadata["least"], field.metadata.get("most", math.inf)
    if not (least <= value <= most and math.isfinite(value)):
        limit = f" and at most {most}" if most < math.inf else ""
        raise UserError(f"--{field.name}={value}; it must be at least {least}{limit}")
