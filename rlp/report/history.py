"""The metrics of a run by step, as columns read from metrics.jsonl."""

import functools
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlp.metrics import catalogue, metrics_file
from rlp.metrics.metric import Metric

_SHOWN = (metric.key for metric in (*catalogue.PLOTTED, *catalogue.TOTALS) if metric.shown)
_KEYS = {"step", "skipped_updates", *_SHOWN}


@dataclass(frozen=True)
class History:
    """The metrics of a run, each step once, in rising order.

    Attributes:
      steps: [n] float64.
      columns: Name -> its values, [n] float64; nan if a step does not have the metric.
      last: All metrics of the last step.
    """

    steps: np.ndarray = field(default_factory=lambda: np.empty(0))
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)

    def column(self, key: str) -> np.ndarray:
        """Return the values of a metric, [n] float64; nan if a step does not have it."""
        return self.columns.get(key, np.full(len(self), np.nan))

    def seconds(self) -> float | None:
        """Return the total seconds of all stages and steps, or None if none were logged."""
        stages = [values for name, values in self.columns.items() if _is_stage(name)]
        known = (float(value) for values in stages for value in values[~np.isnan(values)])
        return math.fsum(known) if stages else None


@functools.cache
def _is_plotted(name: str) -> bool:
    """Return whether a metric that is not in the catalogue by this name is plotted."""
    return catalogue.find(name, catalogue.PLOTTED_TEMPLATES) is not None


def _is_stage(name: str) -> bool:
    return name.startswith("seconds_") and name not in catalogue.names("total")


def read_history(
    path: Path, note: Callable[[str], object], declared: Sequence[Metric] = ()
) -> History:
    """Read metrics.jsonl, using a few hundred bytes of memory per step.

    Args:
      path: The file.
      note: Called with one line for each kind of damage.
      declared: Metrics that the run has in addition to those of the catalogue.

    Raises:
      UserError, OSError: As in `metrics_file.read`.
    """
    keys = _KEYS | {metric.key for metric in declared}
    columns: dict[str, array] = {}
    count, last, bad = 0, {"step": -math.inf}, 0
    first_bad = 0
    for number, line in enumerate(metrics_file.read(path), 1):
        if line.torn:
            note(f"{path}: the last line is incomplete and was skipped")
            break
        if line.row is None or line.skipped:
            bad += 1
            first_bad = first_bad or number
        if line.row is None:
            continue
        for name in line.row:
            if name not in columns and (name in keys or _is_stage(name) or _is_plotted(name)):
                columns[name] = array("d", [math.nan]) * count
        for name, values in columns.items():
            value = line.row.get(name)
            values.append(math.nan if value is None else value)
        count += 1
        if line.row["step"] >= last["step"]:
            last = line.row
    if bad:
        lines = f"{bad:,} lines are" if bad > 1 else "a line is"
        note(f"{path}, line {first_bad:,}: {lines} damaged and could not be read completely")
    if not count:
        return History()
    return _ordered({name: np.array(values) for name, values in columns.items()}, last, path, note)


def _ordered(
    columns: dict[str, np.ndarray],
    last: Mapping[str, Any],
    path: Path,
    note: Callable[[str], object],
) -> History:
    """Sort the rows by step; if a step occurs twice, keep the later line."""
    steps = columns["step"]
    if (np.diff(steps) <= 0).any():
        backwards = steps[::-1]
        unique, indices = np.unique(backwards, return_index=True)
        repeated = len(steps) - len(unique)
        if repeated:
            lines = f"{repeated:,} line{'s' * (repeated > 1)}"
            note(f"{path}: skipped {lines} for steps that occur again later in the file")
        columns = {name: values[::-1][indices] for name, values in columns.items()}
    return History(columns["step"], columns, last)
