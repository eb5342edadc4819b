"""Read run folders and experiment folders.

A run folder contains `config.json`, `metrics.jsonl` and `warnings.json`; when the run ends, it also
contains `evaluation.json`, `thoughts.json` and, with held-out problems, `responses.json`. An
experiment folder contains `config.json`, `summary.json` and a run folder per arm. A folder whose
`config.json` or `summary.json` is damaged is refused. For any other file that is damaged or not
yet written, the page shows a note; damage is also logged.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlp.metrics import catalogue, declared, metrics_file
from rlp.metrics.metric import Metric
from rlp.report import files
from rlp.report.history import History, read_history
from rlp.runtime import disk_errors, run_folder
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One trained model.

    Attributes:
        name: The name of its folder, or of the arm of an experiment.
        folder: The run folder.
        config: The resolved config; empty if an arm has no folder.
        seed: The seed of its config or of its experiment; None if neither has one.
        summary: Held-out metrics, training totals, "steps" and "wall_s" (seconds by stage), in the
            form of an arm in summary.json; unknown keys are absent.
        metrics: The metrics by step.
        declared: Metrics that it has in addition to those of the catalogue.
        thoughts: The content of thoughts.json, or None.
        warnings: The content of warnings.json: "name", "step" and "message" of each.
        problems: The problems of responses.json with their responses; empty without the file.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    seed: int | None
    summary: Mapping[str, Any]
    metrics: History
    declared: Sequence[Metric]
    thoughts: Mapping[str, Any] | None
    warnings: Sequence[Mapping[str, Any]]
    problems: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """One folder of a report: an experiment with its arms, or a single run.

    Attributes:
        name: A short and unique name.
        folder: The folder.
        config: The resolved config.
        seed: The seed, or None if none was recorded.
        runs: The arms in the order of summary.json; one run for a plain run.
        arms: Whether this is an experiment.
        versions: Library versions; empty if they were not recorded.
        wall_seconds: Total wall-clock time, or None if it was not recorded.
        notes: What is missing or damaged, one line each.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    seed: int | None
    runs: tuple[Run, ...]
    arms: bool
    versions: Mapping[str, str]
    wall_seconds: float | None
    notes: tuple[str, ...]


def load_folders(folders: Sequence[Path]) -> list[Source]:
    """Read run folders and experiment folders.

    Raises:
        UserError: If `folders` is empty, contains a folder twice, or contains a folder that is not
            a run or an experiment; or if a config.json or summary.json is damaged.
    """
    if not folders:
        raise UserError("no folder to report on; name at least one run, for example runs/demo")
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    for path, real in zip(paths, resolved, strict=True):
        if resolved.count(real) > 1:
            raise UserError(f"{path} is named twice; name every folder once")
    bases = [real.name for real in resolved]
    names = [
        base if bases.count(base) == 1 else str(path)
        for base, path in zip(bases, paths, strict=True)
    ]
    return [_load_source(path, name) for path, name in zip(paths, names, strict=True)]


def _load_source(folder: Path, name: str) -> Source:
    if not folder.exists():
        raise UserError(f"{folder} does not exist; name a run folder or an experiment folder")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; name the run folder that contains it")
    if not (folder / run_folder.CONFIG).exists():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    if (folder / run_folder.SUMMARY).exists():
        return _load_experiment(folder, name)
    notes: list[str] = []
    run = _load_run(folder, name, None, notes)
    if not len(run.metrics) and not run.summary and not (folder / run_folder.EVALUATION).exists():
        raise UserError(
            f"{folder} has no summary.json, metrics.jsonl or evaluation.json yet; train first"
        )
    seconds = _mapping(run.summary.get("wall_s")).get("train")
    return Source(name, folder, run.config, run.seed, (run,), False, {}, seconds, tuple(notes))


def _load_experiment(folder: Path, name: str) -> Source:
    path = folder / run_folder.SUMMARY
    config = files.read_object(folder / run_folder.CONFIG)
    summary = files.read_object(path)
    arms = summary.get("arms")
    files.check_numbers({"wall_s": summary.get("wall_s")}, str(path))
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, str) for arm in arms):
        raise UserError(f'{path}: "arms" must list the names of the arms; the file is damaged')
    for arm in arms:
        try:
            disk_errors.refuse_name("an arm", arm)
        except UserError as error:
            raise UserError(f"{path}: {error}; the file is damaged") from error
    seed = _seed(path, summary if "seed" in summary else config)
    notes: list[str] = []
    runs = []
    for arm in arms:
        metrics = summary.get(arm)
        if not isinstance(metrics, dict):
            raise UserError(f'{path}: arm "{arm}" has no metrics; the file is damaged')
        files.check_numbers(metrics, f'{path}: arm "{arm}"')
        if (folder / arm).is_dir():
            runs.append(_load_run(folder / arm, arm, seed, notes, metrics))
        else:
            notes.append(f"{folder / arm} is missing: this arm has no curves and no thoughts")
            runs.append(Run(arm, folder / arm, {}, seed, metrics, History(), (), None, (), ()))
    versions = {str(k): str(v) for k, v in _mapping(summary.get("versions")).items()}
    return Source(
        name, folder, config, seed, tuple(runs), True, versions, summary.get("wall_s"), tuple(notes)
    )


def _load_run(
    folder: Path,
    name: str,
    seed: int | None,
    notes: list[str],
    arm_summary: Mapping[str, Any] | None = None,
) -> Run:
    """Read one run folder, and add to `notes` what is missing or damaged.

    Args:
        folder: The run folder.
        name: The name of the run or arm.
        seed: The seed of the experiment; None to read it from the config.
        notes: A list to append to.
        arm_summary: The summary of an arm, from summary.json; None for a plain run.
    """
    if not (folder / run_folder.CONFIG).exists():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    config = files.read_object(folder / run_folder.CONFIG)
    damage = lambda text: _damage(notes, text)
    extra = _or_note(damage, "no metrics of its objective", declared.read, folder) or ()
    metrics = _read_metrics(folder / run_folder.METRICS, notes, extra)
    summary = _summarise(folder, metrics, notes) if arm_summary is None else arm_summary
    _note_missing_steps(folder / run_folder.METRICS, metrics, summary, damage)
    if (metrics.column("skipped_updates") > 0).any():
        notes.append(f"{folder}: updates were skipped because a loss or gradient was not finite")
    seed = _seed(folder / run_folder.CONFIG, config) if seed is None else seed
    optional = lambda without, read, name: _or_note(damage, without, read, folder / name)
    thoughts = optional("no thoughts", files.read_thoughts, run_folder.THOUGHTS)
    warnings = optional("no warnings", files.read_warnings, run_folder.WARNINGS) or []
    problems = optional("no responses", files.read_problems, run_folder.RESPONSES) or []
    return Run(name, folder, config, seed, summary, metrics, extra, thoughts, warnings, problems)


def _damage(notes: list[str], text: str) -> None:
    """Add a note on a damaged file, and log it."""
    notes.append(text)
    LOGGER.warning("%s", printable(text))


def _or_note(
    damage: Callable[[str], None], without: str, read: Callable[[Path], T], path: Path
) -> T | None:
    """Read a file with `read`; return None if it does not exist or is damaged.

    If it is damaged, calls `damage` with a note that says what is missing (`without`).
    """
    if not path.exists():
        return None
    try:
        return read(path)
    except UserError as error:
        damage(f"{error}: {without} of this run are shown")
        return None


def _summarise(folder: Path, metrics: History, notes: list[str]) -> dict[str, Any]:
    """Return the summary of a plain run: its last evaluation, and totals from its metrics."""
    summary: dict[str, Any] = {}
    path = folder / run_folder.EVALUATION
    if path.exists():
        damage = lambda text: _damage(notes, text)
        summary |= _or_note(damage, "no held-out metrics", files.read_evaluation, path) or {}
    else:
        notes.append(f"{path} is missing: the run has not been evaluated yet")
    if len(metrics):
        summary["steps"] = summary.get("step", metrics.last["step"])
        counts = {name: metrics.last.get(name) for name in catalogue.names("total")}
        summary |= {name: count for name, count in counts.items() if count is not None}
        seconds = metrics.seconds()
        if seconds is not None:
            summary["wall_s"] = {"train": seconds}
    return summary


def _read_metrics(path: Path, notes: list[str], extra: Sequence[Metric]) -> History:
    """Read the metrics by step, and add to `notes` what is missing or damaged."""
    if not path.exists():
        notes.append(f"{path} is missing: this run has no curves")
        return History()
    try:
        return read_history(path, lambda text: _damage(notes, text), extra)
    except (OSError, UserError) as error:
        _damage(notes, f"{path} cannot be read ({error}): this run has no curves")
        return History()


def _note_missing_steps(
    path: Path, metrics: History, summary: Mapping[str, Any], damage: Callable[[str], None]
) -> None:
    """Add a note on steps that the run has taken but that are missing from metrics.jsonl."""
    folders = (path.parent / run_folder.CHECKPOINTS).glob("[0-9]*")
    saved = [int(folder.name) for folder in folders if _is_step(folder.name)]
    known = [summary.get("steps"), summary.get("step"), metrics.last.get("step"), *saved]
    last = max((step for step in known if type(step) is int), default=0)
    steps = (int(step) for step in metrics.steps)
    if spans := metrics_file.missing(steps, last):
        damage(f"{path}: the metrics of {metrics_file.in_words(spans)} are missing from the curves")


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 19


def _seed(path: Path, content: Mapping[str, Any]) -> int | None:
    """Return the seed in the content of a file, or None if it has none."""
    seed = content.get("seed")
    if seed is not None and not isinstance(seed, int):
        raise UserError(f'{path}: "seed" is not an integer; the file is damaged')
    return seed


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
