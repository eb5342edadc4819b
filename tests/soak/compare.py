"""What a case leaves, and how that differs from what an undisturbed run left."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.soak.kinds import WORKDIR, Kind
from tests.soak.program import read_json
from tests.support import runs

# A new start adds a file of events, a step that was damaged is moved aside, and the names of files
# with arrays are random.
_VARIES = re.compile(r".*/tensorboard/events[^/]*|.*/checkpoints/(damaged(/.*)?|[0-9]+/.*)")


def left_by(kind: Kind, folder: Path) -> dict[str, Any]:
    """What must not depend on how often the run in the folder of a case was stopped: the bits of
    all arrays, figures, metrics, thoughts, and the names of all files."""
    workdir = folder / WORKDIR
    found: dict[str, Any] = {}
    for name in kind.runs:
        found |= {f"{name}/{part}": value for part, value in runs.outcome(workdir / name).items()}
    if (workdir / "summary.json").exists():
        found["summary"] = runs.timeless(read_json(workdir / "summary.json"))
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    found["files"] = {path: True for path in paths if not _VARIES.fullmatch(path)}
    return found


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Where two values of `left_by` differ, as texts."""
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
