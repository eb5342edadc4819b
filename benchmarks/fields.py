"""Dataclasses of sizes whose fields define flags with default, help and range. No jax."""

import argparse
import dataclasses
import math
from typing import Any

from rlp.runtime.errors import UserError


def flag(default: Any, help_: str, **metadata: Any) -> Any:
    """Define a field that is a flag.

    Args:
      default: default value.
      help_: help of the flag.
      **metadata: `least` (default 1), `most`, `choices`, and further metadata of the dataclass.
    """
    return dataclasses.field(default=default, metadata={"help": help_, "least": 1} | metadata)


def check_ranges(sizes: Any) -> None:
    """Check the ranges of all numbers.

    Raises:
      UserError: If one is out of range; the message names the flag.
    """
    for field in dataclasses.fields(sizes):
        if field.type is not str:
            _check_range(field, getattr(sizes, field.name))


def arguments(sizes: Any) -> list[str]:
    """Return the flags that set these sizes."""
    return [f"--{name}={value}" for name, value in dataclasses.asdict(sizes).items()]


def add_flags(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Define a flag for every field of the dataclass `kind`."""
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
    """Return the values of the fields of `kind` in parsed flags."""
    return {field.name: getattr(flags, field.name) for field in dataclasses.fields(kind)}


def counts(kind: Any) -> tuple[str, ...]:
    """Return the names of the integer fields."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.type is int)


def varied(sizes: Any, over: str, text: str) -> list[Any]:
    """Return the sizes with each value of a flag such as --values=1,2,4 for one field.

    Args:
      sizes: the other sizes.
      over: name of the field.
      text: integers separated by commas.

    Raises:
      UserError: If they are not integers, not ascending, or not valid sizes.
    """
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--values={text!r}; use integers separated by commas") from error
    if numbers != sorted(set(numbers)):
        raise UserError(f"--values={text!r} must ascend, without repeats")
    return [dataclasses.replace(sizes, **{over: number}) for number in numbers]


def _check_range(field: dataclasses.Field, value: float) -> None:
    least, most = field.metadata["least"], field.metadata.get("most", math.inf)
    if not (least <= value <= most and math.isfinite(value)):
        limit = f" and at most {most}" if most < math.inf else ""
        raise UserError(f"--{field.name}={value}; it must be at least {least}{limit}")
