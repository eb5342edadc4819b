"""Save the config of a run as JSON in the run directory, load it, and compare two configs.

The JSON is nested like the config. Loading returns what was saved: the same fields with the same
types (1 and 1.0 stay distinct), and floats to the last bit.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from rlp.runtime import atomic_files
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

Value = bool | int | float | str

# Fields that decide where and in which pieces a run is computed, or that only observe it. They may
# change on resume.
_PLACEMENT = re.compile(
    r"(arms\.[^.]+\.)?(mesh\..+|profile\..+|model\.(remat|attention)|rlp\.(max_branches_in_flight"
    r"|update_micro_batch|rollout_layout|baseline_memory))"
)


def fields(config: ConfigDict, group: str = "") -> Iterator[tuple[str, Value]]:
    """Yield the dotted path and the value of every field, in the order of the names.

    Args:
      config: The config to walk.
      group: Prefix of every path, with a trailing dot.

    Raises:
      UserError: If a value is not a finite number, a string, True or False.
    """
    for name, value in config.items():
        path = group + name
        if isinstance(value, ConfigDict):
            yield from fields(value, path + ".")
        elif not isinstance(value, Value):
            kind = type(value).__name__
            raise UserError(
                f"config field {path} is a {kind}; use a number, a string, True or False"
            )
        elif isinstance(value, str) and not _is_unicode(value):
            raise UserError(f"config field {path} is {value!a}; use a string of valid Unicode")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config field {path} is {value}; use a finite number")
        else:
            yield path, value


def _is_unicode(text: str) -> bool:
    """Whether a string can be encoded, that is, contains no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def save_config(config: ConfigDict, path: str | Path) -> None:
    """Write `config` to `path` atomically.

    Raises:
      UserError: If a value cannot be saved; see `fields`.
    """
    path = Path(path)
    for _ in fields(config):  # raises for values that JSON cannot represent exactly
        pass
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_files.write_whole(path, text + "\n")


def load_config(path: str | Path) -> ConfigDict:
    """Load the config that `save_config` wrote to `path`.

    Raises:
      UserError: If the file is missing or is not a saved config.
    """
    try:
        return ConfigDict(read_object(Path(path), "it is not the config of a run"))
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not the config of a run: {error}") from error


def load_run(path: Path) -> ConfigDict:
    """Load the config of a run or an experiment that `save_config` wrote to `path`.

    Raises:
      UserError: If the file is missing or is not the config of a run or an experiment.
    """
    if not kind_of(path):
        load_config(path)  # may raise a more specific error
        raise UserError(f"{path} is not the config of a run")
    return load_config(path)


def kind_of(path: Path) -> str:
    """Return "run" or "experiment" for a config that `save_config` wrote, "" for other files."""
    try:
        config = load_config(path)
    except UserError:
        return ""
    if not all(isinstance(config.get(name), ConfigDict) for name in ("data", "model", "rlp")):
        return ""
    return "experiment" if "arms" in config else "run"


def check_same(saved: ConfigDict, new: ConfigDict) -> list[str]:
    """Return the fields in which two configs differ, as strings such as `steps: 100 -> 200`.

    A field that only one config has is shown as missing in the other. Fields that only decide on
    which devices and in which pieces a run is computed are ignored. Returns [] for equal runs.
    """
    before, after = ({k: json.dumps(v) for k, v in fields(config)} for config in (saved, new))
    return [
        f"{path}: {before.get(path, 'missing')} -> {after.get(path, 'missing')}"
        for path in sorted(before | after)
        if before.get(path) != after.get(path) and not _PLACEMENT.fullmatch(path)
    ]
