"""Collect the facts on which all processes of a run must agree, and describe differences."""

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
# Settings of JAX that change numerical results without changing the config.
NUMERICS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
MAX_SHOWN = 3  # differences listed in a message
CODE, FILE = "the code of ", "the file "  # prefixes of the name of a file
_ABSENT = "missing"
_ENDS = 1 << 20  # bytes compared at each end of a file


class Member(NamedTuple):
    """A process of a run and its host.

    Attributes:
      process: Number of the process, from 0.
      host: Name of the machine that it runs on.
    """

    process: int
    host: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def differences(facts_of: Mapping[Member, Mapping[str, Any]]) -> list[str]:
    """Describe the facts that differ: "seed is 0 on process 0 on a and 1 on process 1 on b".

    Args:
      facts_of: For each process, a mapping from names to JSON values.

    Returns:
      One string for each name whose value is not the same on all processes.
    """
    names = dict.fromkeys(name for facts in facts_of.values() for name in facts)
    lines = []
    for name in names:
        groups: dict[str, list[Member]] = {}
        for member, facts in facts_of.items():
            groups.setdefault(_shown(facts, name), []).append(member)
        if len(groups) > 1:
            lines.append(_difference(name, groups))
    return lines


def refusal(lines: Sequence[str]) -> str:
    """Format the result of `differences` as a one-line error message."""
    more = f"; and {len(lines) - MAX_SHOWN} more" if len(lines) > MAX_SHOWN else ""
    return (
        f"the processes of this run differ: {'; '.join(lines[:MAX_SHOWN])}{more}; start all "
        "processes with the same command, code and files"
    )


def _shown(facts: Mapping[str, Any], name: str) -> str:
    return repr(facts[name]) if name in facts else _ABSENT


def _difference(name: str, groups: Mapping[str, Sequence[Member]]) -> str:
    if name.startswith((CODE, FILE)):  # name the minority; their digests would say nothing
        _, *minority = sorted(groups.values(), key=len, reverse=True)
        return f"{name} differs on {_listed([member for group in minority for member in group])}"
    return f"{name} is " + " and ".join(
        f"{value} on {_listed(group)}" for value, group in groups.items()
    )


def _listed(group: Sequence[Member]) -> str:
    """Name some processes."""
    if len(group) == 1:
        return str(group[0])
    numbers = ", ".join(str(member.process) for member in group[:8])
    return f"processes {numbers}" + (", …" if len(group) > 8 else "")


def data_difference(data_of: Mapping[Member, Mapping[str, Fingerprint]]) -> str:
    """Describe the first process whose data differ from those of process 0; "" if all are equal.

    Args:
      data_of: For each process, its fingerprint of the data; process 0 comes first.
    """
    (first, expected), *others = data_of.items()
    for member, data in others:
        if changed := changes(expected, data):
            return (
                f"{member} has different data than {first} ({'; '.join(changed[:MAX_SHOWN])}); "
                "give all processes the same files"
            )
    return ""


def program_facts() -> dict[str, str]:
    """Return digests of the sources of `rlp` and `models`, library versions and JAX settings."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        **{f"the version of {name}": version for name, version in versions.items()},
        "the version of Python": platform.python_version(),
        **{name: str(getattr(jax.config, name, None)) for name in NUMERICS},
        **_sources(),
    }


def _sources() -> dict[str, str]:
    digests = {}
    for package in (rlp, models):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digests[f"{CODE}{root.name}/{path.relative_to(root).as_posix()}"] = _digest(path)
    return digests


def config_facts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return every field of a config, and digests of the modules that the config names.

    Args:
      fields: Dotted paths and values, as `rlp.runtime.config_json.fields` yields them.
    """
    values = {f"config.{path}": value for path, value in fields.items()}
    modules = {
        value.partition(":")[0]
        for path, value in values.items()
        if isinstance(value, str) and ":" in value and names_code(path)
    }
    return values | {f"{CODE}{name}": _module(name) for name in sorted(modules)}


def file_facts(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Return the size and a digest of every file in a folder; {} if the folder does not exist.

    The digest covers only the first and the last MiB: weights are many gigabytes, and every process
    reads only its own share of them.
    """
    facts = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            with path.open("rb") as file:
                parts = [file.read(_ENDS)]
                file.seek(max(0, path.stat().st_size - _ENDS))
                parts.append(file.read(_ENDS))
            digest = hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
            facts[f"{FILE}{path}"] = f"{path.stat().st_size} bytes, {digest}"
    return facts


def _module(name: str) -> str:
    """Return a digest of the source of a module; "" if the module does not exist.

    A missing module is reported when it is imported.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    path = Path(spec.origin) if spec and spec.origin else None
    return _digest(path) if path is not None and path.is_file() else ""


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
