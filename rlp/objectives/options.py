"""Options of an objective: numbers and strings that a config can set (`objective_options`)."""

import difflib
import math
from collections.abc import Iterator, Mapping

from rlp.runtime.errors import UserError

Value = bool | int | float | str


class Options(Mapping[str, Value]):
    """Values by name, as items and as attributes; hashable, to be static arguments of jit."""

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __getattr__(self, name: str) -> Value:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._values:
            cure = _suggestion(name, self)
            raise UserError(f"the objective reads an undeclared option {name!r}; {cure}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __eq__(self, other: object) -> bool:
        # 1 and 1.0 differ, since a program that is compiled for one has other dtypes.
        typed = lambda options: {name: (type(v), v) for name, v in options.items()}
        return isinstance(other, Options) and typed(self) == typed(other)

    def __repr__(self) -> str:
        return f"Options({self._values})"


def resolve(
    objective: str, declared: Mapping[str, Value], configured: Mapping[str, Value]
) -> dict[str, Value]:
    """Return the options of an objective: its defaults, overridden by the values of a config.

    Args:
      objective: its name, for the error.
      declared: from name to default, which has the type of the option.
      configured: from name to value.

    Raises:
      UserError: If an option does not exist or its value has another type.
    """
    for name, value in configured.items():
        field = f"objective_options.{name}"
        if name not in declared:
            cure = _suggestion(name, Options(declared))
            message = f"{field}: {objective!r} does not have this option; {cure}"
            raise UserError(message, field=field, value=value)
        kind = type(declared[name])
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise UserError(
                f"{field}={value!r} must be a {kind.__name__}, like its default {declared[name]!r}",
                field=field,
                value=value,
            )
    cast = lambda name, value: float(value) if isinstance(declared[name], float) else value
    return dict(declared) | {name: cast(name, value) for name, value in configured.items()}


def _suggestion(name: str, known: Mapping[str, Value]) -> str:
    """Return the end of an error message about an unknown option."""
    if not known:
        return "it declares none, so add options={...} to its Objective"
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"its options are {', '.join(known)}"
