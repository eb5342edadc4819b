"""Record which folders belong to a run, so that it never overwrites files that it did not write.

A run, an experiment and a sweep each write a record, owner.json, to their folder before anything
else. If a folder has no record, it may not contain any file with a name that they would write: the
folder is refused before anything is written. So they only ever replace or delete their own files.
Other files in the folder are left alone.
"""

import os
from pathlib import Path

from rlp.runtime import atomic_files, disk_errors, run_folder
from rlp.runtime.config_json import kind_of
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

_ADVICE = "use another folder, or move these files away"


def check(folder: Path, kind: str) -> None:
    """Verify that a run, an experiment or a sweep can start or resume in a folder.

    Args:
      folder: The folder, which may not exist yet.
      kind: A key of `run_folder.WRITTEN`.

    Raises:
      UserError: If the folder cannot be written, or if `refuse_foreign` raises.
    """
    disk_errors.refuse_unwritable(folder)
    refuse_foreign(folder, kind)


def refuse_foreign(folder: Path, kind: str) -> None:
    """Raise UserError if the folder contains files that a run of this kind would overwrite but has
    not written.

    Args:
      folder: The folder, which may not exist yet.
      kind: A key of `run_folder.WRITTEN`.
    """
    with disk_errors.writing(folder):
        _refuse_inside(folder)
        record = _record(folder)
        if record is not None and record["owner"] != kind:
            raise UserError(
                f"{folder} belongs to another {record['owner']} and cannot hold this {kind}; use "
                "another folder"
            )
        names = (run_folder.OWNER, *run_folder.WRITTEN[kind])
        taken = [name for name in names if _taken(folder / name)]
        if taken and record is None and not _copied_without_record(folder, kind):
            raise UserError(
                f"{folder} contains {', '.join(taken)}, which this {kind} has not written and "
                f"would overwrite; {_ADVICE}"
            )


def _refuse_inside(folder: Path) -> None:
    """Raise UserError if a folder is among the files of a run, an experiment or a sweep."""
    target = folder.resolve()
    for parent in target.parents:
        record = _record(parent)
        if record and target.relative_to(parent).parts[0] in run_folder.WRITTEN[record["owner"]]:
            raise UserError(
                f"{folder} is among the files of the {record['owner']} in {parent}; use another "
                "folder"
            )


def claim(folder: Path, kind: str, files: bool = False) -> None:
    """Create the folder if it does not exist, and write the record of its owner.

    Args:
      folder: A folder that `refuse_foreign` has accepted.
      kind: A key of `run_folder.WRITTEN`.
      files: Whether the run has written `run_folder.HF`, or is about to.
    """
    record = {"owner": kind, run_folder.HF: files}
    if _record(folder) != record:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(folder / run_folder.OWNER, record)


def made_files(folder: Path) -> bool | None:
    """Whether the run has written `run_folder.HF` in its folder; None if there is no record."""
    record = _record(folder)
    return None if record is None else record[run_folder.HF]


def _record(folder: Path) -> dict | None:
    """Return the content of owner.json; None if the file is missing or is not such a record."""
    path = folder / run_folder.OWNER
    if not path.is_file():
        return None
    try:
        record = read_object(path)
    except UserError:
        return None
    known = record.get("owner") in [*run_folder.WRITTEN]
    return record if known and isinstance(record.get(run_folder.HF), bool) else None


def _taken(path: Path) -> bool:
    """Whether a path exists and is not an empty folder."""
    if path.is_dir() and not (path.name == run_folder.HF and path.is_symlink()):
        return any(path.iterdir())
    return os.path.lexists(path)


def _copied_without_record(folder: Path, kind: str) -> bool:
    """Whether this is a copy of a run or an experiment with its config and checkpoints only."""
    manifests = f"{run_folder.CHECKPOINTS}/*/{run_folder.MANIFEST}"
    patterns = {"run": manifests, "experiment": f"*/{manifests}"}
    saved = kind in patterns and any(folder.glob(patterns[kind]))
    return saved and kind_of(folder / run_folder.CONFIG) == kind
