"""The checkpoints folder on disk: its names, its leftovers, and whether a checkpoint is whole.

Orbax writes a step into a temporary folder and renames that folder when all is written. Our
manifest is written just before the rename, so a step without one, or one that differs from it, is
damaged. The check comes before Orbax reads anything, because Orbax does not notice a flipped bit
in array data, and because the check tells damage (go back to the step before) from a tree that
does not fit (an error of the config). It cannot see a file that was changed together with the
manifest, nor values that were wrong when they were saved.
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

DAMAGED = "damaged"  # folder of the steps that were moved aside
# JSON: which items there are, and times. Orbax writes it again while and after we list the files,
# so it has no checksum in the manifest and only has to be readable.
ORBAX_METADATA = "_CHECKPOINT_METADATA"
UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's suffix of a step that is not committed yet
REPLACED = ".replaced"  # suffix of a step while the same step is being saved again


def saved_steps(directory: Path) -> list[int]:
    """Steps under `directory`, rising, whole or not; empty if there is no such directory."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def best_step(directory: Path) -> int | None:
    """The step with the best figure, the later one of equals; None if no step has a figure.

    Should the steps have been judged by several figures, the one of the newest step counts.
    """
    whole = [step for step in saved_steps(directory) if not find_fault(directory / str(step))]
    figures = {step: read_manifest(directory / str(step))["figure"] for step in whole}
    judged = [step for step in whole if figures[step]]
    if not judged:
        return None
    name, lower = figures[judged[-1]]["name"], figures[judged[-1]]["lower_is_better"]
    candidates = [step for step in judged if figures[step]["name"] == name]
    sign = -1 if lower else 1
    return max(candidates, key=lambda step: (sign * figures[step]["value"], step))


def clear_leftovers(directory: Path) -> None:
    """Removes unfinished saves, and replaced steps once their replacement is committed.

    A replaced step whose replacement never came gets its name back. No save may be under way.
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
    """Removes a folder or a file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, step: int, figure: Mapping[str, Any] | None) -> None:
    """Lists every file under `folder` with size in bytes and CRC-32, and the step's figure."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _crc32_of_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / ORBAX_METADATA
    }
    body = {"step": step, "figure": figure, "files": files}
    atomic_files.write_json(folder / MANIFEST, {"crc32": _crc32(body), **body})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a step; ValueError if it is not as `write_manifest` left it."""
    body = parse((folder / MANIFEST).read_text())
    if not isinstance(body, dict) or body.pop("crc32", None) != _crc32(body):
        raise ValueError(f"{folder / MANIFEST} fails its own checksum")
    return body


def find_fault(
    folder: Path, *, items: Collection[str] | None = None, contents: bool = False
) -> str | None:
    """What is wrong with a step on disk, in a few words, or None.

    Args:
      folder: the step's folder.
      items: check only the files of these items; None checks all.
      contents: compare checksums too, which reads every byte; sizes cost no reading.
    """
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return f"{MANIFEST} is missing"
    except ValueError:  # not UTF-8, not JSON, or not its checksum
        return f"{MANIFEST} is garbled"
    if str(manifest["step"]) != folder.name:
        return f"it is step {manifest['step']} under another name"
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
            return f"{MANIFEST} names {name!r}, which is not inside of its folder"
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
    """CRC-32 of a JSON value, the same however it is laid out in the file."""
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
