"""The checkpoints folder on disk: names, leftovers of killed processes, and verification.

Orbax writes a step into a temporary folder and renames it when all files are written. Our manifest
is written just before the rename, so a step is damaged if it has no manifest or differs from it.
Steps are verified before Orbax reads them, because Orbax does not detect a flipped bit in array
data, and to distinguish damage (fall back to an earlier step) from a tree that does not match (an
error of the config). Verification cannot detect a file that was changed together with the manifest,
nor values that were wrong when they were saved.
"""

import json
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.run_folder import MANIFEST
from rlp.runtime.strict_json import parse

DAMAGED = "damaged"  # folder for damaged steps
# JSON with the names of items, and times. Orbax rewrites it during and after the manifest is
# written, so the manifest has no checksum of it, and it only has to be readable.
ORBAX_METADATA = "_CHECKPOINT_METADATA"
UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's suffix of a step that is not committed yet
REPLACED = ".replaced"  # suffix of a step while the same step is saved again


def saved_steps(directory: Path) -> list[int]:
    """Return the steps in `directory`, ascending, damaged or not; [] if it does not exist."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def best_step(directory: Path) -> int | None:
    """Return the step with the best metric, the latest of several; None if no step has a metric.

    If steps have different metrics, only those with the metric of the newest step are compared.
    """
    intact = [step for step in saved_steps(directory) if not find_fault(directory / str(step))]
    metrics = {step: read_manifest(directory / str(step))["figure"] for step in intact}
    evaluated = [step for step in intact if metrics[step]]
    if not evaluated:
        return None
    newest = metrics[evaluated[-1]]
    candidates = [step for step in evaluated if metrics[step]["name"] == newest["name"]]
    sign = -1 if newest["lower_is_better"] else 1
    return max(candidates, key=lambda step: (sign * metrics[step]["value"], step))


def clear_leftovers(directory: Path) -> None:
    """Remove unfinished saves, and replaced steps whose replacement is committed.

    A replaced step without a replacement gets its name back. No save may be in progress.
    """
    for path in directory.glob(f"*{UNFINISHED}*"):
        remove(path)
    for path in directory.glob(f"*{REPLACED}"):
        step = path.with_name(path.name.removesuffix(REPLACED))
        if step.exists():
            remove(path)
        else:
            path.rename(step)


def remove(path: Path) -> None:
    """Remove a folder or a file, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, step: int, metric: Mapping[str, Any] | None) -> None:
    """Write the manifest: size in bytes and CRC-32 of every file, and the metric of the step."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _crc32_of_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / ORBAX_METADATA
    }
    body = {"step": step, "figure": metric, "files": files}
    atomic_files.write_json(folder / MANIFEST, {"crc32": _crc32(body), **body})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a step.

    Raises:
      ValueError: If it is not JSON, or its checksum does not match.
    """
    body = parse((folder / MANIFEST).read_text())
    if not isinstance(body, dict) or body.pop("crc32", None) != _crc32(body):
        raise ValueError(f"the checksum of {folder / MANIFEST} does not match its content")
    return body


def find_fault(
    folder: Path, *, items: Collection[str] | None = None, contents: bool = False
) -> str | None:
    """Verify a step on disk; return a short description of the first fault, or None.

    Args:
      folder: of the step.
      items: only the files of these items are verified; None for all.
      contents: whether to compare checksums as well as sizes, which reads every byte.
    """
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return f"{MANIFEST} is missing"
    except ValueError:  # not UTF-8, not JSON, or another checksum
        return f"{MANIFEST} is garbled"
    if str(manifest["step"]) != folder.name:
        return f"{MANIFEST} belongs to step {manifest['step']}"
    try:
        metadata = parse((folder / ORBAX_METADATA).read_text())
    except FileNotFoundError:
        return f"{ORBAX_METADATA} is missing"
    except ValueError:
        return f"{ORBAX_METADATA} is garbled"
    if not isinstance(metadata, dict):
        return f"{ORBAX_METADATA} is garbled"
    for name, (size, crc32) in manifest["files"].items():
        if not disk_errors.is_inside(name):
            return f"{MANIFEST} names {name!r}, which is not inside its folder"
        item, slash, _ = name.partition("/")
        if items is not None and slash and item not in items:
            continue
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if contents and _crc32_of_file(path) != crc32:
            return f"{name} has changed since it was written"
    return None


def _crc32_of_file(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _crc32(body: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a JSON value, independent of its formatting."""
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
