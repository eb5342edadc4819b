"""The lines of the plots: read, averaged over seeds, smoothed, downsampled."""

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
    """A metric of one run: [n] arrays; flops (cumulative) is empty if it was not logged."""

    steps: np.ndarray
    flops: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Series:
    """A metric of one group: one line per seed, and their mean at the steps that all seeds have."""

    name: str
    color: int
    lines: tuple[Line, ...]
    mean: Line


@dataclass(frozen=True)
class Plot:
    """A metric, and the series of all groups that have it."""

    metric: Metric
    series: tuple[Series, ...]


def build_plots(groups: Sequence[Group]) -> list[Plot]:
    """Return a plot for every metric that some run has; held-out metrics need at least 2 points."""
    plots = []
    runs = [run for group in groups for run in group.runs]
    declared = dict.fromkeys(metric for run in runs for metric in run.declared)
    keys = dict.fromkeys(key for run in runs for key in run.metrics.columns)
    found = (catalogue.find(key, [m]) for m in catalogue.PLOTTED_TEMPLATES for key in keys)
    for metric in (*catalogue.PLOTTED, *filter(None, found), *declared):
        series = []
        for color, group in enumerate(groups):
            lines = tuple(filter(None, (read_line(run, metric.key) for run in group.runs)))
            if lines:
                series.append(Series(group.name, color, lines, mean_line(lines)))
        longest = max((len(line.steps) for s in series for line in s.lines), default=0)
        if longest >= (2 if metric.held_out else 1):
            plots.append(Plot(metric, tuple(series)))
    return plots


def read_line(run: Run, key: str) -> Line | None:
    """Return the finite values of a metric, or None if there are none.

    "loss" is read from next-token runs only: the value of RLP's surrogate loss is not meaningful.
    """
    if key == "loss" and run.config.get("objective") != "next_token":
        return None
    values = run.metrics.column(key)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    flops = run.metrics.column("flops")[finite]
    counted = not np.isnan(flops).any()
    return Line(run.metrics.steps[finite], flops if counted else flops[:0], values[finite])


def mean_line(lines: Sequence[Line]) -> Line:
    """Return the mean over lines, of values and FLOPs, at the steps that all of them have."""
    if len(lines) == 1:
        return lines[0]
    common = functools.reduce(np.intersect1d, (line.steps for line in lines))
    indices = [np.searchsorted(line.steps, common) for line in lines]
    counted = all(len(line.flops) for line in lines)
    mean = lambda name: np.mean(
        [getattr(line, name)[index] for line, index in zip(lines, indices, strict=True)], axis=0
    )
    return Line(common, mean("flops") if counted else common[:0], mean("values"))


def smooth(line: Line) -> Line:
    """Return a running mean over 1/20 of the line; the window shrinks to 1 towards the ends."""
    count = len(line.values)
    total = np.concatenate([[0.0], np.cumsum(line.values)])
    index = np.arange(count)
    side = np.minimum(count // 40, np.minimum(index, count - 1 - index))
    values = (total[index + side + 1] - total[index - side]) / (2 * side + 1)
    return Line(line.steps, line.flops, values)


def thin(line: Line, most: int) -> Line:
    """Downsample to at most `most` points: means over bins of consecutive points."""
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
    """Downsample to at most `most` points so that single outliers stay visible.

    Keeps the first and the last point, and the lowest and the highest point of each bin of
    consecutive points. With at least two bins per pixel, the drawing equals that of the whole line
    (U. Jugel et al., "M4: a visualization-oriented time series data aggregation", VLDB 2014).
    """
    count = len(line.values)
    if count <= most:
        return line
    size = math.ceil(count / ((most - 2) // 2))
    padded = np.append(line.values, np.repeat(line.values[-1:], -count % size)).reshape(-1, size)
    starts = np.arange(len(padded)) * size
    indices = [starts + padded.argmin(axis=1), starts + padded.argmax(axis=1), [0, count - 1]]
    selected = np.unique(np.minimum(np.concatenate(indices), count - 1))
    select = lambda values: values[selected] if len(values) else values
    return Line(select(line.steps), select(line.flops), select(line.values))
