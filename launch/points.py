"""The points of a sweep: read from a config file, checked, named, and put in order.

    sweep()  ->  fields per point, checked  ->  names  ->  references to other points  ->  order

`init_from` and `match` of a point may name another point, as those of an experiment's arm may name
an arm; such a point waits for that other one, and starts from it (of the same seed, if there is
one of each seed).
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

NAME = "name"  # of a point, where the fields that it sets would not do; no field is called so
RESERVED = (*run_folder.WRITTEN["sweep"], run_folder.OWNER)  # what else is in the folder of a sweep
_LONGEST_NAME = 200  # bytes; file systems take 255, and a log is called <name>.log


@dataclass
class Point:
    """One run (or experiment) of a sweep.

    Attributes:
      label: its name, but for the seed.
      seed: that it sets, if it does.
      fields: what it sets, dotted; references are turned into folders.
      folder: its workdir.
      needs: names of the points that must be finished before it starts.
      arms: whether it is an experiment.
    """

    label: str
    seed: int | None
    fields: dict[str, Value]
    folder: Path = Path()
    needs: list[str] = field(default_factory=list)
    arms: bool = False

    @property
    def name(self) -> str:
        """Of its folder: label and seed."""
        return self.label if self.seed is None else f"{self.label},seed={self.seed}"

    @property
    def finished_by(self) -> Path:
        """The file that its run leaves when it ends."""
        return finishing_file(self.folder, self.arms)

    @property
    def finished(self) -> bool:
        """Whether its run has ended. What is damaged is to be written again by the run."""
        if not self.finished_by.exists():
            return False
        try:
            read_object(self.finished_by)
        except UserError:
            return False
        return True


def finishing_file(workdir: Path, arms: bool) -> Path:
    """The file that a run, or an experiment (a config with arms), leaves when it ends."""
    return workdir / (run_folder.SUMMARY if arms else run_folder.EVALUATION)


def read_points(
    spec: str, config: ConfigDict, for_all: Iterable[str], workdir: Path
) -> list[Point]:
    """The points that sweep() of a config file yields, each after those that it needs.

    Args:
      spec: "file.py" or "file.py:argument".
      config: what they share.
      for_all: fields that the command line sets for all points.
      workdir: of the sweep.

    Raises:
      UserError: no points, an unknown field, a value of another type, points that are the same or
        cannot be told apart, or points that wait for one another.
    """
    raw = config_files.call(spec, "sweep")
    if isinstance(raw, Mapping | str) or not isinstance(raw, Iterable):
        raise UserError(f"sweep of {spec} must yield dictionaries, not be a {type(raw).__name__}")
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
    """The config of a point: what all share, with its own fields put over it."""
    return config_files.changed(config, point.fields)


def command(
    point: Point, spec: str, config: ConfigDict, for_all: Iterable[str], python: str
) -> list[str]:
    """The command that runs a point, or goes on with it.

    Args:
      point: to run.
      spec: of the config file.
      config: what all points share, flags included.
      for_all: fields that flags set; their values are read from `config`.
      python: the interpreter that runs it.
    """
    shared = dict(fields(config))
    values = {path: shared[path] for path in for_all} | point.fields
    flags = [f"--config.{path}={_text(value)}" for path, value in values.items()]
    start = [python, "-m", "launch.train", f"--config={spec}", f"--workdir={point.folder}"]
    return start + flags


def shell_line(point: Point, points: Sequence[Point], words: Sequence[str]) -> str:
    """The command of a point as a line for a shell; it waits for nothing, but fails where a point
    that it needs has not been finished."""
    by_name = {other.name: other for other in points}
    guards = [f"test -e {shlex.quote(str(by_name[n].finished_by))}" for n in point.needs]
    return " && ".join([*guards, shlex.join(words)])


def _point(values: object, config: ConfigDict, for_all: set[str]) -> Point:
    if not isinstance(values, Mapping):
        raise UserError(f"must be a dictionary of dotted fields, not a {type(values).__name__}")
    own, known = dict(values), dict(fields(config))
    label = own.pop(NAME, "")
    for path, value in own.items():
        config_fields.typed(known, str(path), value)
        if path in for_all:
            raise UserError(
                f"{path} is set here and by --config.{path}; leave one of them out", field=path
            )
        config_fields.check_reaches_an_arm(path, known, config.get("arms", ()))
    seed = own.get("seed")
    if label == "":
        return Point("", seed, own)
    if not isinstance(label, str) or not re.fullmatch(r"\w[\w.+=,-]*", label, re.ASCII):
        raise UserError(f"{NAME}={label!r}; use letters, digits and . + = , _ -")
    return Point(label, seed, own)


def _check_distinct(points: Sequence[Point]) -> None:
    """Gives labels to the points that have none; refuses those that cannot be told apart."""
    references = _references(points)
    shown = {path for p in points if not p.label for path in p.fields} - {"seed"}
    short = _short_names(shown)
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
            raise UserError(f"a point cannot be called {point.name!r}: give it another {NAME!r}")
        other = labels.setdefault(point.label, point)
        if differing := sorted(p for p, _ in _but_seed(point) ^ _but_seed(other)):
            raise UserError(
                f"two points called {point.label!r} differ in {', '.join(dict.fromkeys(differing))}"
                f": give one of them another {NAME!r}"
            )
        if names.setdefault(point.name, point) is not point:
            raise UserError(f"the point {point.name!r} is there twice")


def _but_seed(point: Point) -> set[tuple[str, Value]]:
    return {(path, value) for path, value in point.fields.items() if path != "seed"}


def _references(points: Sequence[Point]) -> set[tuple[str, Value]]:
    """Fields and values that name a point; they say what it builds on, not what it is."""
    given = {point.label for point in points if point.label}
    return {
        (path, value)
        for point in points
        for path, value in point.fields.items()
        if path in FIELDS and FIELDS[path](str(value)).run in given
    }


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path to as many of its last names as tell it from the others."""
    paths = list(paths)
    short = {}
    for path in paths:
        words = path.split(".")
        ends = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        same = lambda end, path=path: any(("." + p).endswith("." + end) for p in paths if p != path)
        short[path] = next((end for end in ends if not same(end)), path)
    return short


def _resolve(point: Point, points: Sequence[Point]) -> None:
    """Turns what names another point into its folder, and notes that it must come first."""
    places = {(other.label, other.seed): other for other in points}
    for path, split in FIELDS.items():
        named = split(str(point.fields.get(path, "")))
        other = places.get((named.run, point.seed)) or places.get((named.run, None))
        if other is not None:
            point.fields[path] = named.of(other.folder)
            point.needs.append(other.name)
        elif any(named.run == label for label, _ in places):
            raise UserError(
                f"{point.name} builds on {named.run}, of which there is none of its seed"
            )


def _in_order(points: Sequence[Point]) -> list[Point]:
    order: list[Point] = []
    while len(order) < len(points):
        done = {point.name for point in order}
        ready = [p for p in points if p.name not in done and done.issuperset(p.needs)]
        if not ready:
            left = ", ".join(point.name for point in points if point.name not in done)
            raise UserError(f"the points {left} wait for one another; change init_from or match")
        order.append(ready[0])
    return order


def _text(value: Any) -> str:
    """A value as a flag takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
