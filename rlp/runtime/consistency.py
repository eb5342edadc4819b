"""What all processes of a run must have alike, and how they differ where they do not."""

import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import models
import rlp
from rlp.runtime.fingerprints import Fingerprint, changes
from rlp.runtime.lookup import names_code

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
# Settings of JAX that change numbers without changing a config.
NUMERICS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
MOST = 3  # differences that a message names
CODE, FILE = "the code of ", "the file "  # in front of the name of a file
_ABSENT = "missing"
_ENDS = 1 << 20  # bytes at either end of a file that are compared


class Who(NamedTuple):
    """A process of a run."""

    process: int
    host: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def differences(given: Mapping[Who, Mapping[str, Any]]) -> list[str]:
    """What differs between processes, one item a field: "seed is 0 on process 0 on a, 1 on …".

    Args:
      given: process -> name of a field -> its value, a JSON value.
    """
    names = dict.fromkeys(name for facts in given.values() for name in facts)
    found = []
    for name in names:
        holders: dict[str, list[Who]] = {}
        for who, facts in given.items():
            holders.setdefault(_shown(facts, name), []).append(who)
        if len(holders) > 1:
            found.append(_difference(name, holders))
    return found


def refusal(found: Sequence[str]) -> str:
    """One line for what `differences` found."""
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return (
        f"the processes of this run differ: {'; '.join(found[:MOST])}{more}; start all of them "
        "with the same command, code and files"
    )


def _shown(facts: Mapping[str, Any], name: str) -> str:
    return repr(facts[name]) if name in facts else _ABSENT


def _difference(name: str, holders: Mapping[str, Sequence[Who]]) -> str:
    if name.startswith((CODE, FILE)):
        _, *others = sorted(holders.values(), key=len, reverse=True)
        return f"{name} is another one on {_those([who for group in others for who in group])}"
    return f"{name} is " + " and ".join(
        f"{value} on {_those(group)}" for value, group in holders.items()
    )


def _those(group: Sequence[Who]) -> str:
    """Some processes, in words."""
    if len(group) == 1:
        return str(group[0])
    numbers = ", ".join(str(who.process) for who in group[:8]) + (", …" if len(group) > 8 else "")
    return f"processes {numbers}"


def other_data(given: Mapping[Who, Mapping[str, Fingerprint]]) -> str:
    """One line on the first process whose data are not those of process 0; "" if there is none.

    Args:
      given: process -> its fingerprint of the data, that of process 0 first.
    """
    (first, expected), *others = given.items()
    for who, found in others:
        if changed := changes(expected, found):
            return (
                f"{who} has other data than {first} ({'; '.join(changed[:MOST])}); give all "
                "processes the same files"
            )
    return ""


def of_program() -> dict[str, str]:
    """What this process computes with: sources of `rlp` and `models`, versions, JAX's settings."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        **{f"the version of {name}": version for name, version in versions.items()},
        "the version of Python": platform.python_version(),
        **{name: str(getattr(jax.config, name, None)) for name in NUMERICS},
        **_sources(),
    }


def _sources() -> dict[str, str]:
    found = {}
    for package in (rlp, models):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            found[f"{CODE}{root.name}/{path.relative_to(root).as_posix()}"] = _digest(path)
    return found


def of_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a config, and the sources of the modules that it names.

    Args:
      fields: dotted path -> value, as of `rlp.runtime.config_json.fields`.
    """
    values = {f"config.{path}": value for path, value in fields.items()}
    modules = {
        value.partition(":")[0]
        for path, value in values.items()
        if isinstance(value, str) and ":" in value and names_code(path)
    }
    return values | {f"{CODE}{name}": _module(name) for name in sorted(modules)}


def of_files(folder: Path, pattern: str = "*") -> dict[str, str]:
    """What files of a folder are, by size, beginning and end; empty if there is no such folder.

    Weights are many gigabytes, of which every process reads only its share, so their bytes in the
    middle are not compared.
    """
    found = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            with path.open("rb") as file:
                parts = [file.read(_ENDS)]
                file.seek(max(0, path.stat().st_size - _ENDS))
                parts.append(file.read(_ENDS))
            digest = hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
            found[f"{FILE}{path}"] = f"{path.stat().st_size} bytes, {digest}"
    return found


def _module(name: str) -> str:
    """A digest of the source of a module; "" if it is not one, which is refused elsewhere."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    path = Path(found.origin) if found and found.origin else None
    return _digest(path) if path is not None and path.is_file() else ""


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
