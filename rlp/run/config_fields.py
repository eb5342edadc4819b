"""Fields of a config by name: which one was meant, and whether it can take a value."""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping

from configs import default
from rlp.runtime.config_json import Value, fields
from rlp.runtime.errors import UserError

EXPECTED: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
}
_ARM = re.compile(r"^arms\.[^.]*\.")
_OPTION = re.compile(r"objective_options\.\w+")


def check_names(config_file: str, names: Collection[str]) -> None:
    """Refuses a config that adds fields to those of a run, or lacks some of them.

    An experiment has the fields of a run, and under arms.NAME those that an arm changes.

    Args:
      config_file: that made the config.
      names: dotted paths of all fields of the config.

    Raises:
      UserError: names the field.
    """
    valid = dict(fields(default.get_config()))
    for name in names:
        if (plain := _ARM.sub("", name)) not in valid and not is_option(name):
            raise unknown_field(plain, valid).within(config_file)
    if missing := [name for name in valid if name not in names]:
        raise UserError(
            f"{config_file} lacks {', '.join(missing)}; begin with default.get_config()",
            field=missing[0],
        )


def is_option(path: str) -> bool:
    """Whether a field of a run or an arm is an option, which the objective declares."""
    return _OPTION.fullmatch(_ARM.sub("", path)) is not None


def kind_of(path: str, known: Mapping[str, Value]) -> type | None:
    """The type of a field; None for an option of an objective that the config does not have yet.

    Raises:
      UserError: there is no such field.
    """
    if path in known:
        return type(known[path])
    if is_option(path):
        return None
    raise unknown_field(path, known)


def check_value(path: str, kind: type, value: object) -> None:
    """Refuses a value that a field of this type cannot take; whole numbers pass for finite ones.

    Raises:
      UserError: names the field, what it must be, and the value.
    """
    if kind not in EXPECTED:
        raise UserError(
            f"{path} must be true or false, a number or a text; {value!r} is not",
            field=path,
            value=value,
        )
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong_value(path, kind, value)


def wrong_value(path: str, kind: type, value: object, flag: str = "") -> UserError:
    """The error for a value that is not of the type of its field.

    Args:
      path: of the field.
      kind: of its values.
      value: that was given.
      flag: that gave it, if one did.
    """
    message = f"{flag or path} must be {EXPECTED[kind]}; {value!r} is not"
    return UserError(message, field=path, value=value)


def set_by_arms(path: str, known: Iterable[str]) -> list[str]:
    """The fields of an experiment's arms that take precedence over the shared field `path`."""
    return [name for name in known if re.fullmatch(rf"arms\.[^.]+\.{re.escape(path)}", name)]


def check_reaches_an_arm(path: str, known: Collection[str], arms: Collection[str]) -> None:
    """Refuses to set a field of an experiment that every arm sets itself.

    Raises:
      UserError: names the fields of the arms.
    """
    own = set_by_arms(path, known)
    if own and len(own) == len(arms):
        raise UserError(
            f"every arm sets its own {path}; set {' or '.join(own)} instead", field=path
        )


def unknown_field(path: str, known: Collection[str]) -> UserError:
    """The error for a field that is not in `known` (dotted paths), with what was probably meant."""
    return UserError(_about_unknown(path, known), field=path)


def _about_unknown(path: str, known: Collection[str]) -> str:
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
    """The fields of `known` that `path` was probably meant to be: one, none, or several as likely.

    The last name of a path decides, so that a field is also found under another group than the one
    given; between equal names, the groups do.
    """

    def likeness(field: str) -> tuple[float, float]:
        (group, _, name), (given_group, _, given_name) = field.rpartition("."), path.rpartition(".")
        return _alike(given_name, name), _alike(given_group, group)

    scores = {field: likeness(field) for field in known}
    best = max(scores.values())
    return [field for field, score in scores.items() if score == best and best[0] >= 0.6]


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def typed(known: Mapping[str, Value], path: str, value: object) -> Value:
    """A value as its field keeps it: a whole number for a field of floats becomes a float.

    Raises:
      UserError: there is no such field, or it cannot take the value.
    """
    kind = kind_of(path, known) or type(value)
    check_value(path, kind, value)
    assert isinstance(value, Value)
    return float(value) if kind is float else value
