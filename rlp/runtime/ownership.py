"""Whose a folder is: a run owns only what it made.

A run, an experiment and a sweep each leave a record, owner.json, in their folder before anything
else. Where there is none, nothing of a name that they would write may be there: the folder is
refused before anything is written, so whatever they replace or delete later is their own. Other
files in the folder are left alone.
"""

import json
import os
from pathlib import Path

from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.config_json import kind_of
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

RECORD = "owner.json"
# In the folder of a run: what of a Hugging Face model is not weights (config.json, tokenizer, chat
# template, generation config). The run's tokenizer is read from here, and its export has it all.
FILES = "hf"
CHECKPOINTS = "checkpoints"
LOGS = "logs"  # of each of several processes, or of each point of a sweep
NAMES = {
    "run": (
        *("config.json", FILES, CHECKPOINTS, "metrics.jsonl", "tensorboard", "warnings.json"),
        *("metrics.damaged.jsonl",),
        *("evaluation.json", "thoughts.json", "responses.json", "report.html", "plots"),
        LOGS,
    ),
    "experiment": ("config.json", "summary.json", "pipeline.md", "report.html", "plots", LOGS),
    "sweep": (LOGS, "slurm", "report.html", "plots"),
}
_ADVICE = "take another folder, or move away what is there"


def check(folder: Path, kind: str) -> None:
    """Refuses a folder in which a run, an experiment or a sweep can neither begin nor go on.

    Args:
      folder: which need not exist.
      kind: one of NAMES.

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
        taken = [name for name in (RECORD, *NAMES[kind]) if _taken(folder / name)]
        if taken and record is None and not _copied_without_record(folder, kind):
            raise UserError(
                f"{folder} holds {', '.join(taken)}, which no {kind} has made there; {_ADVICE}"
            )


def _refuse_inside(folder: Path) -> None:
    """Raises UserError if a folder lies among the files of a run, an experiment or a sweep."""
    place = folder.resolve()
    for above in place.parents:
        record = _record(above)
        if record and place.relative_to(above).parts[0] in NAMES[record["owner"]]:
            raise UserError(
                f"{folder} lies among the files of the {record['owner']} in {above}; take another "
                "folder"
            )


def claim(folder: Path, kind: str, files: bool = False) -> None:
    """Makes the folder, if need be, and records whose it is.

    Args:
      folder: that `refuse_foreign` has let pass.
      kind: one of NAMES.
      files: whether the run has made FILES, or is about to.
    """
    record = {"owner": kind, FILES: files}
    if _record(folder) != record:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(folder / RECORD, json.dumps(record, indent=1) + "\n")


def made_files(folder: Path) -> bool | None:
    """Whether FILES in the folder of a run is its own; None where no record says it."""
    record = _record(folder)
    return None if record is None else record[FILES]


def _record(folder: Path) -> dict | None:
    """The content of owner.json; None if there is none, or it is something else."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = read_object(path)
    except UserError:
        return None
    ours = record.get("owner") in [*NAMES] and isinstance(record.get(FILES), bool)
    return record if ours else None


def _taken(path: Path) -> bool:
    """Whether there is anything of this name; an empty folder is as good as none."""
    if path.is_dir() and not (path.name == FILES and path.is_symlink()):
        return any(path.iterdir())
    return os.path.lexists(path)


def _copied_without_record(folder: Path, kind: str) -> bool:
    """Whether this is a run, or an experiment, of which the config and checkpoints were copied."""
    whole = f"{CHECKPOINTS}/*/manifest.json"
    places = {"run": whole, "experiment": f"*/{whole}"}
    saved = kind in places and any(folder.glob(places[kind]))
    return saved and kind_of(folder / "config.json") == kind
