"""Options of an objective: numbers and texts of its own, which a config sets."""

import difflib
import math
from collections.abc import Iterator, Mapping

from rlp.runtime.errors import UserError

Value = bool | int | float | str


class Options(Mapping[str, Value]):
    """Values by name, as items and as attributes.

    They are hashable, so that programs are compiled for them.
    """

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __getattr__(self, name: str) -> Value:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._values:
            raise UserError(f"the objective reads the option {name!r}, {_instead(name, self)}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __eq__(self, other: object) -> bool:
        # 1 and 1.0 are different values for a program that is compiled for them.
        typed = lambda options: {name: (type(v), v) for name, v in options.items()}
        return isinstance(other, Options) and typed(self) == typed(other)

    def __repr__(self) -> str:
        return f"Options({self._values})"


def resolve(
    objective: str, declared: Mapping[str, Value], given: Mapping[str, Value]
) -> dict[str, Value]:
    """The declared options with the values that a config gives.

    Args:
      objective: its name, for the message.
      declared: name of every option to its default, which is of the option's type.
      given: name to value.

    Raises:
      UserError: there is no such option, or it cannot take the value.
    """
    for name, value in given.items():
        field = f"objective_options.{name}"
        if name not in declared:
            known = Options(declared)
            message = f"{field}: {objective!r} has no such option, {_instead(name, known)}"
            raise UserError(message, field=field, value=value)
        kind = type(declared[name])
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise UserError(
                f"{field} must be a {kind.__name__}, as its default {declared[name]!r} is; "
                f"{value!r} is not",
                field=field,
                value=value,
            )
    cast = lambda name, value: float(value) if isinstance(declared[name], float) else value
    return dict(declared) | {name: cast(name, value) for name, value in given.items()}


def _instead(name: str, known: Mapping[str, Value]) -> str:
    """The end of a sentence on an option that is not known."""
    if not known:
        return "and declares none; add options={...} to its Objective"
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
