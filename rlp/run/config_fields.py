"""Look up config fields by name, suggest the nearest name, and check values."""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping

from configs import default
from rlp.runtime.config_json import Value, fields
from rlp.runtime.errors import UserError

EXPECTED: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "a string",
}
_ARM = re.compile(r"^arms\.[^.]*\.")
_OPTION = re.compile(r"objective_options\.\w+")


def check_names(config_file: str, names: Collection[str]) -> None:
    """Check that a config has exactly the fields of a run or an experiment.

    An experiment has the fields of a run and, under arms.NAME, the fields that an arm changes.

    Args:
      config_file: The file that made the config.
      names: Dotted paths of all fields of the config.

    Raises:
      UserError: If a field is unknown or missing; names the field.
    """
    valid = dict(fields(default.get_config()))
    for name in names:
        if (plain := _ARM.sub("", name)) not in valid and not is_option(name):
            raise unknown_field(plain, valid).within(config_file)
    if missing := [name for name in valid if name not in names]:
        raise UserError(
            f"{config_file} lacks the field {', '.join(missing)}; start from default.get_config()",
            field=missing[0],
        )


def is_option(path: str) -> bool:
    """Return whether a field of a run or an arm is an option declared by the objective."""
    return _OPTION.fullmatch(_ARM.sub("", path)) is not None


def kind_of(path: str, known: Mapping[str, Value]) -> type | None:
    """Return the type of a field; None for an objective's option that the config does not have yet.

    Raises:
      UserError: If the field does not exist.
    """
    if path in known:
        return type(known[path])
    if is_option(path):
        return None
    raise unknown_field(path, known)


def check_value(path: str, kind: type, value: object) -> None:
    """Check that a field of this type accepts a value; float fields accept integers.

    Raises:
      UserError: If the value has the wrong type or is not finite; names the field and the value.
    """
    if kind not in EXPECTED:
        raise UserError(
            f"{path} must be true or false, a number or a string; {value!r} is not",
            field=path,
            value=value,
        )
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong_value(path, kind, value)


def wrong_value(path: str, kind: type, value: object, flag: str = "") -> UserError:
    """Return the error for a value that does not have the type of its field.

    Args:
      path: The dotted path of the field.
      kind: The type of the field.
      value: The invalid value.
      flag: The command-line flag that set it, if any.
    """
    message = f"{flag or path} must be {EXPECTED[kind]}; {value!r} is not"
    return UserError(message, field=path, value=value)


def set_by_arms(path: str, known: Iterable[str]) -> list[str]:
    """Return the fields of an experiment's arms that override the shared field `path`."""
    return [name for name in known if re.fullmatch(rf"arms\.[^.]+\.{re.escape(path)}", name)]


def check_reaches_an_arm(path: str, known: Collection[str], arms: Collection[str]) -> None:
    """Check that setting a shared field of an experiment changes at least one arm.

    Raises:
      UserError: If every arm overrides the field; names the fields of the arms.
    """
    overrides = set_by_arms(path, known)
    if overrides and len(overrides) == len(arms):
        raise UserError(
            f"every arm overrides {path}; set {' or '.join(overrides)} instead", field=path
        )


def unknown_field(path: str, known: Collection[str]) -> UserError:
    """Return the error for a field that is not in `known` (dotted paths), with a suggestion."""
    return UserError(_unknown_field_message(path, known), field=path)


def _unknown_field_message(path: str, known: Collection[str]) -> str:
    if inner := [field for field in known if field.startswith(path + ".")]:
        return f"{path} is a group of fields; set them one by one: {', '.join(inner)}"
    if meant := nearest_fields(path, known):
        return f"the config has no field {path!r}; did you mean {' or '.join(meant)}?"
    group = path.rpartition(".")[0]
    while group and not any(field.startswith(group + ".") for field in known):
        group = group.rpartition(".")[0]
    start = group + "." if group else ""
    names = dict.fromkeys(f[len(start) :].split(".")[0] for f in known if f.startswith(start))
    return f"the config has no field {path!r}; {group or 'it'} has {', '.join(names)}"


def nearest_fields(path: str, known: Collection[str]) -> list[str]:
    """Return the fields of `known` that are most similar to `path`: several if they are tied.

    The last component of the path is compared first, so that a field in another group is found too;
    ties are broken by the group.
    """

    def similarity(field: str) -> tuple[float, float]:
        (group, _, name), (wrong_group, _, wrong_name) = field.rpartition("."), path.rpartition(".")
        return _ratio(wrong_name, name), _ratio(wrong_group, group)

    scores = {field: similarity(field) for field in known}
    best = max(scores.values())
    return [field for field, score in scores.items() if score == best and best[0] >= 0.6]


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def typed(known: Mapping[str, Value], path: str, value: object) -> Value:
    """Check a value and convert it to the type of its field: an integer may become a float.

    Raises:
      UserError: If the field does not exist, or does not accept the value.
    """
    kind = kind_of(path, known) or type(value)
    check_value(path, kind, value)
    assert isinstance(value, Value)
    return float(value) if kind is float else value
