"""The lines of the plots: read, averaged over seeds, smoothed, thinned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlp.report.compare import Group
from rlp.report.figures import METRICS, Metric
from rlp.report.load import Run


@dataclass(frozen=True)
class Line:
    """A metric of one run: equally long sequences; flops (cumulative) is empty if not logged."""

    steps: Sequence[float]
    flops: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Series:
    """A metric of one group: a line per seed, and the mean over the steps that all seeds have."""

    name: str
    colour: int
    lines: tuple[Line, ...]
    mean: Line


@dataclass(frozen=True)
class Plot:
    """A metric of all groups that have it."""

    metric: Metric
    series: tuple[Series, ...]


def build_plots(groups: Sequence[Group]) -> list[Plot]:
    """A plot for every metric that some run has; a held-out figure needs two points somewhere."""
    plots = []
    for metric in METRICS:
        series = []
        for colour, group in enumerate(groups):
            lines = tuple(filter(None, (read_line(run, metric.key) for run in group.runs)))
            if lines:
                series.append(Series(group.name, colour, lines, mean_line(lines)))
        longest = max((len(line.steps) for s in series for line in s.lines), default=0)
        if longest >= (2 if metric.held_out else 1):
            plots.append(Plot(metric, tuple(series)))
    return plots


def read_line(run: Run, key: str) -> Line | None:
    """The finite values of a metric, or None if there is none.

    "loss" is read from next-token runs only: the surrogate loss of RLP has no meaning of its own.
    """
    if key == "loss" and run.config.get("objective") != "next_token":
        return None
    kept = [line for line in run.metrics if line.get(key) is not None and math.isfinite(line[key])]
    if not kept:
        return None
    counted = all(line.get("flops") is not None for line in kept)
    return Line(
        [float(line["step"]) for line in kept],
        [float(line["flops"]) for line in kept] if counted else [],
        [float(line[key]) for line in kept],
    )


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean over lines, at the steps that all of them have; FLOPs are averaged likewise."""
    common = sorted(set.intersection(*(set(line.steps) for line in lines)))
    counted = all(line.flops for line in lines)
    places = [{step: n for n, step in enumerate(line.steps)} for line in lines]

    def average(field: str) -> list[float]:
        return [
            math.fsum(
                getattr(line, field)[place[step]] for line, place in zip(lines, places, strict=True)
            )
            / len(lines)
            for step in common
        ]

    return Line(common, average("flops") if counted else [], average("values"))


def smooth(line: Line) -> Line:
    """A running mean over 1/20 of the line; the window shrinks towards the ends, which stay."""
    reach = len(line.values) // 40
    total = [0.0]
    for value in line.values:
        total.append(total[-1] + value)
    values = []
    for n in range(len(line.values)):
        side = min(reach, n, len(line.values) - 1 - n)
        values.append((total[n + side + 1] - total[n - side]) / (2 * side + 1))
    return Line(line.steps, line.flops, values)


def thin(line: Line, most: int) -> Line:
    """At most `most` points: means over bins of equally many neighbours."""
    size = math.ceil(len(line.values) / most) if line.values else 1
    if size == 1:
        return line

    def bins(values: Sequence[float]) -> list[float]:
        parts = [values[n : n + size] for n in range(0, len(values), size)]
        return [math.fsum(part) / len(part) for part in parts]

    return Line(bins(line.steps), bins(line.flops), bins(line.values))
