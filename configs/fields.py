"""How `configs/default.py` declares a field: its default, meaning, unit, symbol and the values it can have.

    @dataclass(frozen=True)
    class RLP:
        group_size: int = field(16, "thoughts per fork", symbol="G", at_least=1)

These classes define the ConfigDict that config files change, the check of every value
(`Field.problem`), the description of every field (`Field.described`) and typed settings (`read`),
in which mypy finds misspelled names.
"""

import dataclasses
import math
import operator
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from ml_collections import ConfigDict

Value = bool | int | float | str
V = TypeVar("V", bool, int, float, str)
G = TypeVar("G")

INT32 = 2**31 - 1  # the largest integer on devices
_SMALLEST_FLOAT32 = 2.0**-126  # devices flush smaller numbers to 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the config.

    At most one lower and one upper bound can be given.

    Attributes:
      path: dotted, such as "rlp.group_size".
      kind: bool, int, float or str.
      default: the value if a config does not set the field.
      help: the meaning of the field.
      unit: unit of the value; "" for none.
      symbol: its symbol in the RLP paper (arXiv 2510.01265), or in the paper of another method; "" for none.
      choices: the allowed values of a string, each with its meaning, which can be "".
      special: values outside of the range or with a special meaning, and that meaning.
      at_least, above: lower bound of a number, inclusive or exclusive.
      at_most, below: upper bound, inclusive or exclusive.
      held_as: "int32" or "float32" if devices store the number, which must be in range in that dtype.
      why: the reason for the bounds, if it is not obvious.
      group: description of the group that the field is in.
    """

    path: str = ""
    kind: type = str
    default: Value
    help: str
    unit: str = ""
    symbol: str = ""
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    special: Mapping[Value, str] = dataclasses.field(default_factory=dict)
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    held_as: str = ""
    why: str = ""
    group: str = ""

    def problem(self, value: Value) -> str:
        """Return why a value of the correct type is invalid, as the end of a sentence that begins
        with "field=value"; "" if it is valid."""
        if value in self.special:
            return ""
        if isinstance(value, str):
            if not self.choices or value in self.choices:
                return ""
            known = [str(name) or "''" for name in (*self.special, *self.choices)]
            return f"is unknown; use one of {', '.join(known)}"
        if not self._in_range(value):
            return f"; it must {self._rule()}"
        if self.held_as == "int32" and value > INT32:
            return f"; it must be at most {INT32}"
        return self._problem_in_float32(value) if self.held_as == "float32" else ""

    def described(self) -> str:
        """Return the meaning with symbol, unit, range and choices, in one line."""
        symbol, unit = self.symbol and f"{self.symbol}: ", self.unit and f" [{self.unit}]"
        choices = [f'"{value}" {meaning}'.rstrip() for value, meaning in self.choices.items()]
        special = [f"{_quoted(value)} = {meaning}" for value, meaning in self.special.items()]
        parts = [f"{symbol}{self.help}{unit}", " | ".join(choices), self._range(), *special]
        return "; ".join(filter(None, parts))

    def _in_range(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def _problem_in_float32(self, value: float) -> str:
        try:
            rounded = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            zero = f", or set it to 0 for {self.special[0]}" if 0 in self.special else ""
            return f", which is infinite in float32; lower it{zero}"
        rounded = 0.0 if abs(rounded) < _SMALLEST_FLOAT32 else rounded
        if self._in_range(rounded):
            return ""
        return f", which is {rounded:g} in float32; it must {self._rule()}"

    def _rule(self) -> str:
        """Return a rule such as "be at least 1, or -1 (all remaining devices)"."""
        allowed = self._range()
        rule = f"be {allowed}"
        outside = [f"{value} ({meaning})" for value, meaning in self.special.items()
                   if not self._in_range(cast(float, value))]
        why = self.why and f": {self.why}"
        return ", or ".join(["not be negative" if allowed == "at least 0" else rule, *outside]) + why

    def _range(self) -> str:
        """Return a range such as "at least 1" or "in [0, 1)"; "" for any value."""
        low, high = max(self.at_least, self.above), min(self.at_most, self.below)
        closed = self.at_least > self.above, self.at_most < self.below
        if math.isinf(low) and math.isinf(high):
            return ""
        if math.isinf(high):
            return f"{'at least' if closed[0] else 'above'} {low}"
        if math.isinf(low):
            return f"{'at most' if closed[1] else 'below'} {high}"
        return f"in {'[' if closed[0] else '('}{low}, {high}{']' if closed[1] else ')'}"


def field(
    default: V, help: str, *, choices: Sequence[str] | Mapping[str, str] = (), **limits: Any
) -> V:
    """Declare a field in the class of its group.

    Args:
      default, help: see `Field`.
      choices: the allowed values of a string, optionally with their meanings.
      **limits: other attributes of `Field`.
    """
    meanings = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
    declared = Field(default=default, help=help, choices=meanings, **limits)
    dataclass_field: Any = dataclasses.field(default=default, metadata={"field": declared})
    return dataclass_field


def count(default: int, help: str, **limits: Any) -> int:
    """Declare an integer that devices store as int32, at least 1 unless `at_least` is given."""
    return field(default, help, held_as="int32", **({"at_least": 1} | limits))


def fraction(default: float, help: str, **limits: Any) -> float:
    """Declare a number from 0 to 1."""
    return field(default, help, at_least=0, at_most=1, **limits)


def options() -> Any:
    """Declare a group whose fields are declared elsewhere; `read` returns it as a dictionary."""
    return dataclasses.field(default_factory=dict)


class Group:
    """Base class of a group of fields. Like a ConfigDict, it is also a mapping, so that
    `make(**group)` passes all fields."""

    def keys(self) -> Iterator[str]:
        """Return the names of the fields and the nested groups."""
        return (member.name for member in dataclasses.fields(cast(Any, self)))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field."""
        return getattr(self, name)


def walk(group: Any, path: str = "") -> Iterator[Field]:
    """Yield the fields of a group and its nested groups, in the order of their declaration.

    Args:
      group: the class of the group.
      path: prefix of the path of every field, with a trailing dot.
    """
    for member in dataclasses.fields(group):
        if dataclasses.is_dataclass(member.type):
            yield from walk(member.type, f"{path}{member.name}.")
        elif "field" in member.metadata:
            yield dataclasses.replace(
                member.metadata["field"],
                path=path + member.name,
                kind=cast(type, member.type),
                group=group.__doc__.splitlines()[0] if path else "",
            )


def config_dict(group: Any) -> ConfigDict:
    """Return a ConfigDict with the defaults of a group, which is given by its class."""
    config = ConfigDict()
    for member in dataclasses.fields(group):
        if dataclasses.is_dataclass(member.type):
            config[member.name] = config_dict(member.type)
        elif "field" in member.metadata:
            config[member.name] = member.default
        else:
            config[member.name] = ConfigDict()
    return config


def nested(values: Mapping[str, Value]) -> dict[str, Any]:
    """Convert values by dotted path into nested dictionaries, as `read` expects them."""
    root: dict[str, Any] = {}
    for path, value in values.items():
        *groups, name = path.split(".")
        parent = root
        for group in groups:
            parent = parent.setdefault(group, {})
        parent[name] = value
    return root


def value_of(config: Any, path: str) -> Value:
    """Return the value of the field with a dotted path."""
    return operator.attrgetter(path)(config)


def flat(config: Any, group: type) -> dict[str, Value]:
    """Return the value of every field of a group in a config, by dotted path."""
    return {field.path: value_of(config, field.path) for field in walk(group)}


def read(group: type[G], values: Mapping[str, Any]) -> G:
    """Return a group with the values of a ConfigDict.

    Args:
      group: the class of the group.
      values: by name, nested like the group. Names that are not in the group are ignored, and a
        field without a value gets its default: the config of an older run may lack it.
    """
    members = [m for m in dataclasses.fields(cast(Any, group)) if m.name in values]
    return group(**{member.name: _read(member, values[member.name]) for member in members})


def _read(member: dataclasses.Field, value: Any) -> Any:
    if dataclasses.is_dataclass(member.type):
        return read(cast(type, member.type), value)
    return value if "field" in member.metadata else dict(value)


def _quoted(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
