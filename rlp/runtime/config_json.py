"""The config that a run was made with: written into its folder, read back, compared.

It is JSON, nested as the config is. Reading gives back what was written: the same fields, of the
same types (1 and 1.0 stay apart), and floats to the last bit.
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

# Fields that do not change what a run computes: devices, pieces, profiling.
_WHERE = re.compile(
    r"(arms\.[^.]+\.)?(mesh\..+|profile\..+|model\.(remat|attention)|rlp\.(max_branches_in_flight"
    r"|update_micro_batch|rollout_layout|baseline_memory))"
)


def fields(config: ConfigDict, group: str = "") -> Iterator[tuple[str, Value]]:
    """Every field as its dotted path and its value, in the order of the names.

    Args:
      config: what to walk.
      group: put before every path, with a dot at its end.

    Raises:
      UserError: a value is not a finite number, a text, True or False.
    """
    for name, value in config.items():
        path = group + name
        if isinstance(value, ConfigDict):
            yield from fields(value, path + ".")
        elif not isinstance(value, Value):
            kind = type(value).__name__
            raise UserError(f"config field {path} is a {kind}; use a number, a text, True or False")
        elif isinstance(value, str) and not _is_unicode(value):
            raise UserError(f"config field {path} is {value!a}, which is not valid Unicode")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config field {path} is {value}; use a finite number")
        else:
            yield path, value


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: it holds no half surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def save_config(config: ConfigDict, path: str | Path) -> None:
    """Writes `config` to `path`, whole or not at all.

    Raises:
      UserError: a value cannot be written, see `fields`.
    """
    path = Path(path)
    for _ in fields(config):  # refuses what JSON cannot hold exactly
        pass
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_files.write_whole(path, text + "\n")


def load_config(path: str | Path) -> ConfigDict:
    """The config that `save_config` wrote to `path`.

    Raises:
      UserError: the file is missing or is not such a file.
    """
    try:
        return ConfigDict(read_object(Path(path), "it is not the config of a run"))
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not the config of a run: {error}") from error


def load_run(path: Path) -> ConfigDict:
    """The config of a run or an experiment that `save_config` wrote to `path`.

    Raises:
      UserError: the file is missing or is not such a file.
    """
    if not kind_of(path):
        load_config(path)  # which may say more
        raise UserError(f"{path} is not the config of a run")
    return load_config(path)


def kind_of(path: Path) -> str:
    """ "run" or "experiment" for a config that `save_config` wrote; "" for any other file."""
    try:
        config = load_config(path)
    except UserError:
        return ""
    if not all(isinstance(config.get(name), ConfigDict) for name in ("data", "model", "rlp")):
        return ""
    return "experiment" if "arms" in config else "run"


def check_same(saved: ConfigDict, new: ConfigDict) -> list[str]:
    """What differs between the runs of two configs, one item a field: `steps: 100 -> 200`.

    A field that one of them lacks is shown as missing there. Fields that say on which devices and
    in what pieces a run is computed may differ. Equal runs give an empty list.
    """
    before, after = ({k: json.dumps(v) for k, v in fields(config)} for config in (saved, new))
    return [
        f"{path}: {before.get(path, 'missing')} -> {after.get(path, 'missing')}"
        for path in sorted(before | after)
        if before.get(path) != after.get(path) and not _WHERE.fullmatch(path)
    ]
