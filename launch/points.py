"""The points of a sweep: read from a config file, checked, named and sorted.

    sweep()  ->  checked fields of each point  ->  names  ->  references to other points  ->  order

`init_from` and `match` of a point can name another point, just as an arm of an experiment can name
another arm. Such a point waits for the other one, that with the same seed if there are several.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ml_collections import ConfigDict

from rlp.run import config_fields, config_files
from rlp.runtime import run_folder
from rlp.runtime.config_json import Value, fields
from rlp.runtime.errors import UserError
from rlp.runtime.run_reference import FIELDS
from rlp.runtime.strict_json import read_object

NAME = "name"  # key of the name of a point; it is not a field
RESERVED = (*run_folder.WRITTEN["sweep"], run_folder.OWNER)  # other names in the folder of a sweep
_LONGEST_NAME = 200  # bytes; file systems allow 255, and the log is <name>.log


@dataclass
class Point:
    """One run (or experiment) of a sweep.

    Attributes:
      label: its name without the seed.
      seed: the seed that it sets; None if it sets none.
      fields: the fields that it sets, by dotted path; references are resolved to folders.
      folder: workdir of its run.
      needs: names of points that must finish before it starts.
      arms: whether the config is an experiment.
    """

    label: str
    seed: int | None
    fields: dict[str, Value]
    folder: Path = Path()
    needs: list[str] = field(default_factory=list)
    arms: bool = False

    @property
    def name(self) -> str:
        """The name of its folder: label and seed."""
        return self.label if self.seed is None else f"{self.label},seed={self.seed}"

    @property
    def finished_by(self) -> Path:
        """The file that its run writes at its end."""
        return finishing_file(self.folder, self.arms)

    @property
    def finished(self) -> bool:
        """Whether its run has ended. A damaged file does not count: the run writes it again."""
        if not self.finished_by.exists():
            return False
        try:
            read_object(self.finished_by)
        except UserError:
            return False
        return True


def finishing_file(workdir: Path, arms: bool) -> Path:
    """Return the file that a run, or an experiment (a config with arms), writes at its end."""
    return workdir / (run_folder.SUMMARY if arms else run_folder.EVALUATION)


def read_points(
    spec: str, config: ConfigDict, for_all: Iterable[str], workdir: Path
) -> list[Point]:
    """Return the points of sweep() of a config file, each after those that it needs.

    Args:
      spec: "file.py" or "file.py:argument".
      config: the config that they share.
      for_all: fields that the command line sets for all points.
      workdir: folder of the sweep.

    Raises:
      UserError: There are no points, a field is unknown, a value has the wrong type, or points are
        equal, indistinguishable or wait for each other.
    """
    raw = config_files.call(spec, "sweep")
    if isinstance(raw, Mapping | str) or not isinstance(raw, Iterable):
        raise UserError(
            f"sweep of {spec} must return or yield dictionaries; it is a {type(raw).__name__}"
        )
    points = []
    for number, values in enumerate(raw, 1):
        try:
            points.append(_point(values, config, set(for_all)))
        except UserError as error:
            raise error.within(f"sweep of {spec}, point {number}") from error
    if not points:
        raise UserError(f"sweep of {spec} yields no points")
    _check_distinct(points)
    for point in points:
        point.arms, point.folder = "arms" in config, workdir / point.name
    for point in points:
        _resolve(point, points)
    return _in_order(points)


def point_config(config: ConfigDict, point: Point) -> ConfigDict:
    """Return the config of a point: the shared config with the fields of the point."""
    return config_files.changed(config, point.fields)


def command(
    point: Point, spec: str, config: ConfigDict, for_all: Iterable[str], python: str
) -> list[str]:
    """Return the command that runs or resumes a point.

    Args:
      point: the point to run.
      spec: value of --config.
      config: the config that all points share, with the fields that flags set.
      for_all: fields that flags set; their values are read from `config`.
      python: the Python interpreter.
    """
    shared = dict(fields(config))
    values = {path: shared[path] for path in for_all} | point.fields
    flags = [f"--config.{path}={_text(value)}" for path, value in values.items()]
    start = [python, "-m", "launch.train", f"--config={spec}", f"--workdir={point.folder}"]
    return start + flags


def shell_line(point: Point, points: Sequence[Point], words: Sequence[str]) -> str:
    """Return the command of a point as a shell line, which fails if a point that it needs is not
    finished."""
    by_name = {other.name: other for other in points}
    guards = [f"test -e {shlex.quote(str(by_name[n].finished_by))}" for n in point.needs]
    return " && ".join([*guards, shlex.join(words)])


def _point(values: object, config: ConfigDict, for_all: set[str]) -> Point:
    if not isinstance(values, Mapping):
        raise UserError(f"must be a dictionary of dotted fields, not a {type(values).__name__}")
    point_fields, known = dict(values), dict(fields(config))
    label = point_fields.pop(NAME, "")
    for path, value in point_fields.items():
        config_fields.typed(known, str(path), value)
        if path in for_all:
            raise UserError(
                f"{path} is set here and by --config.{path}; remove one of them", field=path
            )
        config_fields.check_reaches_an_arm(path, known, config.get("arms", ()))
    seed = point_fields.get("seed")
    if label == "":
        return Point("", seed, point_fields)
    if not isinstance(label, str) or not re.fullmatch(r"\w[\w.+=,-]*", label, re.ASCII):
        raise UserError(f"{NAME}={label!r}; use letters, digits and . + = , _ -")
    return Point(label, seed, point_fields)


def _check_distinct(points: Sequence[Point]) -> None:
    """Label the points without a name; raise a UserError if points are indistinguishable."""
    references = _references(points)
    named_by = {path for p in points if not p.label for path in p.fields} - {"seed"}
    short = _short_names(named_by)
    labels: dict[str, Point] = {}
    names: dict[str, Point] = {}
    for point in points:
        if not point.label:
            parts = [
                f"{short[path]}={quote(_text(value), safe='+')}"
                for path, value in point.fields.items()
                if path != "seed" and (path, value) not in references
            ]
            point.label = ",".join(sorted(parts)) or "unchanged"
        if point.name in RESERVED or len(point.name) > _LONGEST_NAME:
            raise UserError(f"a point cannot be called {point.name!r}; give it another {NAME!r}")
        other = labels.setdefault(point.label, point)
        if differing := sorted(p for p, _ in _but_seed(point) ^ _but_seed(other)):
            raise UserError(
                f"two points called {point.label!r} differ in {', '.join(dict.fromkeys(differing))}"
                f"; give one of them another {NAME!r}"
            )
        if names.setdefault(point.name, point) is not point:
            raise UserError(f"there are two points {point.name!r}; remove one of them")


def _but_seed(point: Point) -> set[tuple[str, Value]]:
    return {(path, value) for path, value in point.fields.items() if path != "seed"}


def _references(points: Sequence[Point]) -> set[tuple[str, Value]]:
    """Return (field, value) pairs that refer to another point; they are not part of a name."""
    labels = {point.label for point in points if point.label}
    return {
        (path, value)
        for point in points
        for path, value in point.fields.items()
        if path in FIELDS and FIELDS[path](str(value)).run in labels
    }


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the shortest unambiguous suffix of every dotted path."""
    paths = list(paths)
    short = {}
    for path in paths:
        words = path.split(".")
        ends = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        same = lambda end, path=path: any(("." + p).endswith("." + end) for p in paths if p != path)
        short[path] = next((end for end in ends if not same(end)), path)
    return short


def _resolve(point: Point, points: Sequence[Point]) -> None:
    """Resolve references of a point to other points into their folders, and set `needs`."""
    by_label = {(other.label, other.seed): other for other in points}
    for path, split in FIELDS.items():
        named = split(str(point.fields.get(path, "")))
        other = by_label.get((named.run, point.seed)) or by_label.get((named.run, None))
        if other is not None:
            point.fields[path] = named.of(other.folder)
            point.needs.append(other.name)
        elif any(named.run == label for label, _ in by_label):
            raise UserError(
                f"{point.name} needs {named.run} with its seed, but there is no such point; add it"
            )


def _in_order(points: Sequence[Point]) -> list[Point]:
    order: list[Point] = []
    while len(order) < len(points):
        done = {point.name for point in order}
        ready = [p for p in points if p.name not in done and done.issuperset(p.needs)]
        if not ready:
            waiting = ", ".join(point.name for point in points if point.name not in done)
            raise UserError(f"the points {waiting} wait for each other; change init_from or match")
        order.append(ready[0])
    return order


def _text(value: Any) -> str:
    """Return a value as the text of a flag."""
    return str(value).lower() if isinstance(value, bool) else str(value)
