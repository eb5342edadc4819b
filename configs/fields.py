"""How `configs/default.py` declares a field: its default, meaning, unit, symbol and the values it can have.

    @dataclass(frozen=True)
    class RLP:
        group_size: int = field(16, "thoughts per fork", symbol="G", at_least=1)

From such classes derive the ConfigDict that config files change, the check of every value
(`Field.problem`), the description of every field (`Field.described`) and typed settings (`read`),
in which mypy finds a misspelt name.
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

INT32 = 2**31 - 1  # the largest number that devices can count to
_SMALLEST_FLOAT32 = 2.0**-126  # devices flush smaller numbers to 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the config.

    Of two bounds on one side, give one.

    Attributes:
      path: dotted, such as "rlp.group_size".
      kind: bool, int, float or str.
      default: its value where a config does not change it.
      help: what it means.
      unit: of its value; "" for none.
      symbol: in the RLP paper (arXiv 2510.01265) or, for other methods, in theirs; "" for none.
      choices: the only values of a text, each with its meaning, which may be "".
      special: values outside of the range, or with a meaning of their own, and that meaning.
      at_least, above: lower bound of a number, inclusive or exclusive.
      at_most, below: upper bound, inclusive or exclusive.
      held_as: "int32" or "float32" if devices hold the number, so that it must be in range there too.
      why: the reason for the bounds, where it is not obvious.
      group: what its group holds.
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
        """What is wrong with a value of the right type, as the end of a sentence that begins with
        "field=value"; "" if nothing is."""
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
        """Its meaning, with the paper's symbol, unit, range and choices, in one line."""
        symbol, unit = self.symbol and f"{self.symbol}: ", self.unit and f" [{self.unit}]"
        choices = [f'"{value}" {meaning}'.rstrip() for value, meaning in self.choices.items()]
        special = [f"{_quoted(value)} = {meaning}" for value, meaning in self.special.items()]
        parts = [f"{symbol}{self.help}{unit}", " | ".join(choices), self._range(), *special]
        return "; ".join(filter(None, parts))

    def _in_range(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def _problem_in_float32(self, value: float) -> str:
        try:
            held = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            zero = f", or set it to 0 for {self.special[0]}" if 0 in self.special else ""
            return f", which is infinite in float32; lower it{zero}"
        held = 0.0 if abs(held) < _SMALLEST_FLOAT32 else held
        if self._in_range(held):
            return ""
        return f", which is {held:g} in float32; it must {self._rule()}"

    def _rule(self) -> str:
        """Such as "be at least 1, or -1 (all that are left)"."""
        allowed = self._range()
        rule = f"lie {allowed}" if allowed.startswith("in ") else f"be {allowed}"
        outside = [f"{value} ({meaning})" for value, meaning in self.special.items()
                   if not self._in_range(cast(float, value))]
        why = self.why and f": {self.why}"
        return ", or ".join(["not be negative" if allowed == "at least 0" else rule, *outside]) + why

    def _range(self) -> str:
        """Such as "at least 1" or "in [0, 1)"; "" for any value."""
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
    """A field in the class of its group.

    Args:
      default, help: see `Field`.
      choices: the only values of a text, or of each its meaning.
      **limits: other attributes of `Field`.
    """
    named = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
    declared = Field(default=default, help=help, choices=named, **limits)
    made: Any = dataclasses.field(default=default, metadata={"field": declared})
    return made


def count(default: int, help: str, **limits: Any) -> int:
    """A field with a number that devices count to in int32; 1 or more unless `at_least` is given."""
    return field(default, help, held_as="int32", **({"at_least": 1} | limits))


def fraction(default: float, help: str, **limits: Any) -> float:
    """A field with a number from 0 to 1."""
    return field(default, help, at_least=0, at_most=1, **limits)


def options() -> Any:
    """A group whose fields are declared elsewhere; in a config and in `read` it is what it holds."""
    return dataclasses.field(default_factory=dict)


class Group:
    """Base of a group of fields, which are its attributes. As a ConfigDict does, it gives them by
    name, too, so that `make(**group)` takes them all."""

    def keys(self) -> Iterator[str]:
        """The names of the fields and of the groups in it."""
        return (member.name for member in dataclasses.fields(cast(Any, self)))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __getitem__(self, name: str) -> Any:
        """The value of a field."""
        return getattr(self, name)


def walk(group: Any, path: str = "") -> Iterator[Field]:
    """The fields of a group and of the groups in it, in the order in which they are declared.

    Args:
      group: the class of the group.
      path: put before the path of every field, with a dot at its end.
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
    """A ConfigDict with the defaults of a group, given by its class."""
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
    """Values by dotted paths as nested dictionaries, as `read` takes them."""
    made: dict[str, Any] = {}
    for path, value in values.items():
        *groups, name = path.split(".")
        place = made
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return made


def value_of(config: Any, path: str) -> Value:
    """The value of the field with a dotted path."""
    return operator.attrgetter(path)(config)


def flat(config: Any, group: type) -> dict[str, Value]:
    """Dotted path of every field of a group to its value in a config."""
    return {field.path: value_of(config, field.path) for field in walk(group)}


def read(group: type[G], values: Mapping[str, Any]) -> G:
    """A group with the values of a ConfigDict.

    Args:
      group: the class of the group.
      values: by name, nested as the group is. Names that the group does not have are left out, and
        a field without a value has its default: the config of an older run may lack it.
    """
    members = [m for m in dataclasses.fields(cast(Any, group)) if m.name in values]
    return group(**{member.name: _read(member, values[member.name]) for member in members})


def _read(member: dataclasses.Field, value: Any) -> Any:
    if dataclasses.is_dataclass(member.type):
        return read(cast(type, member.type), value)
    return value if "field" in member.metadata else dict(value)


def _quoted(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
