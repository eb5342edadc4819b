"""The lines of the plots: read, averaged over seeds, smoothed, thinned."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlp.metrics import catalogue
from rlp.metrics.metric import Metric
from rlp.report.compare import Group
from rlp.report.load import Run


@dataclass(frozen=True)
class Line:
    """A metric of one run: arrays of equal length; flops (cumulative) is empty if not logged."""

    steps: np.ndarray
    flops: np.ndarray
    values: np.ndarray


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
    """A plot for every metric that some run has; a held-out metric needs two points somewhere."""
    plots = []
    declared = dict.fromkeys(m for group in groups for run in group.runs for m in run.declared)
    for metric in (*catalogue.PLOTTED, *declared):
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
    values = run.metrics.column(key)
    kept = np.isfinite(values)
    if not kept.any():
        return None
    flops = run.metrics.column("flops")[kept]
    counted = not np.isnan(flops).any()
    return Line(run.metrics.steps[kept], flops if counted else flops[:0], values[kept])


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean over lines, at the steps that all of them have; FLOPs are averaged likewise."""
    if len(lines) == 1:
        return lines[0]
    common = functools.reduce(np.intersect1d, (line.steps for line in lines))
    places = [np.searchsorted(line.steps, common) for line in lines]
    counted = all(len(line.flops) for line in lines)
    of_all = lambda name: np.mean(
        [getattr(line, name)[place] for line, place in zip(lines, places, strict=True)], axis=0
    )
    return Line(common, of_all("flops") if counted else common[:0], of_all("values"))


def smooth(line: Line) -> Line:
    """A running mean over 1/20 of the line; the window shrinks towards the ends, which stay."""
    count = len(line.values)
    total = np.concatenate([[0.0], np.cumsum(line.values)])
    place = np.arange(count)
    side = np.minimum(count // 40, np.minimum(place, count - 1 - place))
    values = (total[place + side + 1] - total[place - side]) / (2 * side + 1)
    return Line(line.steps, line.flops, values)


def thin(line: Line, most: int) -> Line:
    """At most `most` points: means over bins of equally many neighbours."""
    size = math.ceil(len(line.values) / most)
    if size <= 1:
        return line
    starts = np.arange(0, len(line.values), size)

    def means(values: np.ndarray) -> np.ndarray:
        if not len(values):
            return values
        return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))

    return Line(means(line.steps), means(line.flops), means(line.values))


def extremes(line: Line, most: int) -> Line:
    """At most `most` points of the line: its ends, and the lowest and the highest point of each bin
    of equally many neighbours, so that a single odd step stays visible.

    With two bins or more for every pixel, the drawing is that of the whole line (U. Jugel et al.,
    "M4: a visualization-oriented time series data aggregation", VLDB 2014).
    """
    count = len(line.values)
    if count <= most:
        return line
    size = math.ceil(count / ((most - 2) // 2))
    padded = np.append(line.values, np.repeat(line.values[-1:], -count % size)).reshape(-1, size)
    starts = np.arange(len(padded)) * size
    places = [starts + padded.argmin(axis=1), starts + padded.argmax(axis=1), [0, count - 1]]
    kept = np.unique(np.minimum(np.concatenate(places), count - 1))
    part = lambda values: values[kept] if len(values) else values
    return Line(part(line.steps), part(line.flops), part(line.values))
