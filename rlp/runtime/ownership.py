"""Whose a folder is: a run owns only what it made.

A run, an experiment and a sweep each leave a record, owner.json, in their folder before anything
else. Where there is none, nothing of a name that they would write may be there: the folder is
refused before anything is written, so whatever they replace or delete later is their own. Other
files in the folder are left alone.
"""

import os
from pathlib import Path

from rlp.runtime import atomic_files, disk_errors, run_folder
from rlp.runtime.config_json import kind_of
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

_ADVICE = "take another folder, or move away what is there"


def check(folder: Path, kind: str) -> None:
    """Refuses a folder in which a run, an experiment or a sweep can neither begin nor go on.

    Args:
      folder: which need not exist.
      kind: one of `run_folder.WRITTEN`.

    Raises:
      UserError: it cannot be written, or as `refuse_foreign` does.
    """
    disk_errors.refuse_unwritable(folder)
    refuse_foreign(folder, kind)


def refuse_foreign(folder: Path, kind: str) -> None:
    """Raises UserError if a name that a run of this kind would write there is taken by what it did
    not make."""
    with disk_errors.writing(folder):
        _refuse_inside(folder)
        record = _record(folder)
        if record is not None and record["owner"] != kind:
            raise UserError(f"{folder} belongs to another {record['owner']}; {_ADVICE}")
        names = (run_folder.OWNER, *run_folder.WRITTEN[kind])
        taken = [name for name in names if _taken(folder / name)]
        if taken and record is None and not _copied_without_record(folder, kind):
            raise UserError(
                f"{folder} holds {', '.join(taken)}, which no {kind} has made there; {_ADVICE}"
            )


def _refuse_inside(folder: Path) -> None:
    """Raises UserError if a folder lies among the files of a run, an experiment or a sweep."""
    place = folder.resolve()
    for above in place.parents:
        record = _record(above)
        if record and place.relative_to(above).parts[0] in run_folder.WRITTEN[record["owner"]]:
            raise UserError(
                f"{folder} lies among the files of the {record['owner']} in {above}; take another "
                "folder"
            )


def claim(folder: Path, kind: str, files: bool = False) -> None:
    """Makes the folder, if need be, and records whose it is.

    Args:
      folder: that `refuse_foreign` has let pass.
      kind: one of `run_folder.WRITTEN`.
      files: whether the run has made `run_folder.HF`, or is about to.
    """
    record = {"owner": kind, run_folder.HF: files}
    if _record(folder) != record:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(folder / run_folder.OWNER, record)


def made_files(folder: Path) -> bool | None:
    """Whether `run_folder.HF` in the folder of a run is its own; None where no record says it."""
    record = _record(folder)
    return None if record is None else record[run_folder.HF]


def _record(folder: Path) -> dict | None:
    """The content of owner.json; None if there is none, or it is something else."""
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
    """Whether there is anything of this name; an empty folder is as good as none."""
    if path.is_dir() and not (path.name == run_folder.HF and path.is_symlink()):
        return any(path.iterdir())
    return os.path.lexists(path)


def _copied_without_record(folder: Path, kind: str) -> bool:
    """Whether this is a run, or an experiment, of which the config and checkpoints were copied."""
    whole = f"{run_folder.CHECKPOINTS}/*/{run_folder.MANIFEST}"
    places = {"run": whole, "experiment": f"*/{whole}"}
    saved = kind in places and any(folder.glob(places[kind]))
    return saved and kind_of(folder / run_folder.CONFIG) == kind
