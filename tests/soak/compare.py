"""Collect the results of a run, and compare them with those of an undisturbed run."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.soak.kinds import WORKDIR, Kind
from tests.soak.program import read_json
from tests.support import runs

# Each start adds an event file, a damaged checkpoint is moved aside, and array files have random
# names.
_VARIES = re.compile(r".*/tensorboard/events[^/]*|.*/checkpoints/(damaged(/.*)?|[0-9]+/.*)")


def results_of(kind: Kind, folder: Path) -> dict[str, Any]:
    """Return the results that must not depend on how often the run in a folder was stopped: the
    bits of all arrays, the metrics, the thoughts, and the names of all files."""
    workdir = folder / WORKDIR
    results: dict[str, Any] = {}
    for name in kind.runs:
        results |= {f"{name}/{part}": value for part, value in runs.outcome(workdir / name).items()}
    if (workdir / "summary.json").exists():
        results["summary"] = runs.timeless(read_json(workdir / "summary.json"))
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    results["files"] = {path: True for path in paths if not _VARIES.fullmatch(path)}
    return results


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Describe where two results of `results_of` differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        both = [name for name in found if name in expected]
        return [
            *(f"{path}{name} is new" for name in found if name not in expected),
            *(f"{path}{name} is missing" for name in expected if name not in found),
            *_joined(differences(found[n], expected[n], f"{path}{n}: ") for n in both),
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True), 1)
        return _joined(differences(*both, f"{path}[{n}] ") for n, both in pairs)
    if found == expected:
        return []
    return [f"{path}{_short(found)} instead of {_short(expected)}"]


def _joined(lists: Iterable[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _short(value: Any) -> str:
    text = "other bits" if isinstance(value, tuple) else repr(value)
    return text if len(text) < 200 else text[:200] + "…"
