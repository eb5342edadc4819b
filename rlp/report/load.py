"""Reads run folders and experiment folders.

A run folder has `config.json`, `metrics.jsonl` and `warnings.json`; `evaluation.json`,
`thoughts.json` and, where there are problems, `responses.json` appear when the run ends. An
experiment folder has `config.json` and `summary.json`, and a run folder per arm. Without these two
files nothing else has a meaning, so a folder in which one of them is damaged is refused. What else
is damaged, or has not been written yet, becomes a note that the page shows; damage is logged, too.
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
        name: of its folder, or of the arm of an experiment.
        folder: where it was read.
        config: its resolved config; empty if an arm left no folder.
        seed: of its config or of its experiment; None if neither says.
        summary: the evaluation figures, what training used, "steps" and "wall_s" (seconds by
            stage), in the form of an arm in summary.json; a key that is not known is absent.
        metrics: their values by step.
        declared: metrics that it has besides those of the catalogue.
        thoughts: the content of thoughts.json, or None.
        warnings: the content of warnings.json: "name", "step" and "message" of each.
        problems: those of responses.json, with their responses; none where there is no such file.
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
    """One folder that was named: an experiment with its arms, or a single run.

    Attributes:
        name: short, and unlike that of any other source.
        runs: the arms in the order of summary.json; one for a plain run.
        arms: whether this is an experiment.
        versions: of the libraries, as far as recorded.
        wall_seconds: of the whole, as far as recorded.
        notes: what was missing, one line each.
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
    """Reads every folder.

    Raises:
        UserError: no folders, one that is not a run or an experiment, or one that is named twice;
            a config.json or summary.json that is damaged.
    """
    if not folders:
        raise UserError("no folder to report on: name at least one run, for example runs/demo")
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    for path, real in zip(paths, resolved, strict=True):
        if resolved.count(real) > 1:
            raise UserError(f"{path} is named twice: name every folder once")
    bases = [real.name for real in resolved]
    names = [
        base if bases.count(base) == 1 else str(path)
        for base, path in zip(bases, paths, strict=True)
    ]
    return [_load_source(path, name) for path, name in zip(paths, names, strict=True)]


def _load_source(folder: Path, name: str) -> Source:
    if not folder.exists():
        raise UserError(f"{folder} does not exist: name a run folder or an experiment folder")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: name the run folder that holds it")
    if not (folder / run_folder.CONFIG).exists():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    if (folder / run_folder.SUMMARY).exists():
        return _load_experiment(folder, name)
    notes: list[str] = []
    run = _load_run(folder, name, None, notes)
    if not len(run.metrics) and not run.summary and not (folder / run_folder.EVALUATION).exists():
        raise UserError(
            f"{folder} has no summary.json, metrics.jsonl or evaluation.json yet: train first"
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
        figures = summary.get(arm)
        if not isinstance(figures, dict):
            raise UserError(f'{path}: arm "{arm}" has no figures; the file is damaged')
        files.check_numbers(figures, f'{path}: arm "{arm}"')
        if (folder / arm).is_dir():
            runs.append(_load_run(folder / arm, arm, seed, notes, figures))
        else:
            notes.append(f"{folder / arm} is missing: no curves and no thoughts of this arm")
            runs.append(Run(arm, folder / arm, {}, seed, figures, History(), (), None, (), ()))
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
    """Reads one run folder; an arm brings its summary along. Adds to `notes` what is missing."""
    if not (folder / run_folder.CONFIG).exists():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    config = files.read_object(folder / run_folder.CONFIG)
    damage = lambda text: _damage(notes, text)
    brought = _or_note(damage, "no metrics of its objective", declared.read, folder) or ()
    metrics = _read_metrics(folder / run_folder.METRICS, notes, brought)
    summary = _summarise(folder, metrics, notes) if arm_summary is None else arm_summary
    _note_missing_steps(folder / run_folder.METRICS, metrics, summary, damage)
    if (metrics.column("skipped_updates") > 0).any():
        notes.append(f"{folder}: updates were skipped because a loss or gradient was not finite")
    seed = _seed(folder / run_folder.CONFIG, config) if seed is None else seed
    optional = lambda without, read, name: _or_note(damage, without, read, folder / name)
    thoughts = optional("no thoughts", files.read_thoughts, run_folder.THOUGHTS)
    warnings = optional("no warnings", files.read_warnings, run_folder.WARNINGS) or []
    problems = optional("no responses", files.read_problems, run_folder.RESPONSES) or []
    return Run(name, folder, config, seed, summary, metrics, brought, thoughts, warnings, problems)


def _damage(notes: list[str], text: str) -> None:
    """Adds a note on something that is damaged, and logs it."""
    notes.append(text)
    LOGGER.warning("%s", printable(text))


def _or_note(
    damage: Callable[[str], None], without: str, read: Callable[[Path], T], path: Path
) -> T | None:
    """What `read` gives for a file; None where there is no such file, and where it is damaged,
    which a note says, with what the report is `without`."""
    if not path.exists():
        return None
    try:
        return read(path)
    except UserError as error:
        damage(f"{error}: {without} of this run are shown")
        return None


def _summarise(folder: Path, metrics: History, notes: list[str]) -> dict[str, Any]:
    """The summary of a plain run: its last evaluation, and cost and time from its metrics."""
    summary: dict[str, Any] = {}
    path = folder / run_folder.EVALUATION
    if path.exists():
        damage = lambda text: _damage(notes, text)
        summary |= _or_note(damage, "no held-out figures", files.read_figures, path) or {}
    else:
        notes.append(f"{path} is missing: the run has not been evaluated, its figures are blank")
    if len(metrics):
        summary["steps"] = summary.get("step", metrics.last["step"])
        counts = {name: metrics.last.get(name) for name in catalogue.names("total")}
        summary |= {name: count for name, count in counts.items() if count is not None}
        seconds = metrics.seconds()
        if seconds is not None:
            summary["wall_s"] = {"train": seconds}
    return summary


def _read_metrics(path: Path, notes: list[str], extra: Sequence[Metric]) -> History:
    """The metrics by step, with a note on what is missing or damaged."""
    if not path.exists():
        notes.append(f"{path} is missing: no curves of this run")
        return History()
    try:
        return read_history(path, lambda text: _damage(notes, text), extra)
    except (OSError, UserError) as error:
        _damage(notes, f"{path} cannot be read ({error}): no curves of this run")
        return History()


def _note_missing_steps(
    path: Path, metrics: History, summary: Mapping[str, Any], damage: Callable[[str], None]
) -> None:
    """A note on the steps that the run has taken and that metrics.jsonl does not have."""
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
    """The seed that a file gives; None if it gives none."""
    seed = content.get("seed")
    if seed is not None and not isinstance(seed, int):
        raise UserError(f'{path}: "seed" is not a whole number; the file is damaged')
    return seed


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
