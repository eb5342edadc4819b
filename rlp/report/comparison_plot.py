"""A plot of selected held-out metrics over training FLOPs, for papers and web pages."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from rlp.metrics import catalogue
from rlp.metrics.metric import HELD_OUT_PREFIX, Metric
from rlp.report.columns import value_in
from rlp.report.compare import Group
from rlp.report.curves import read_line
from rlp.report.load import Run
from rlp.report.plots import COLORS, DASHES, DOTS_PER_INCH, PANEL, SOFTWARE, plain_label, style
from rlp.runtime import atomic_files, disk_errors, run_reference
from rlp.runtime.errors import UserError

# Suffix -> the metadata of the file, which identifies our files.
FORMATS = {".svg": {"Creator": SOFTWARE, "Date": None}, ".png": {"Software": SOFTWARE}}


@dataclass(frozen=True)
class Curve:
    """A metric of one group: values [seeds, points] at the mean FLOPs [points] over seeds."""

    group: Group
    color: int
    flops: np.ndarray
    values: np.ndarray


def write_comparison(groups: Sequence[Group], keys: Sequence[str], out: Path) -> None:
    """Draw a panel per metric: a line for the mean over seeds in a band from smallest to largest.

    An arm that starts from another arm begins, at 0 FLOPs, with the final value of that arm. Arms
    with one value, such as those that others start from, are dotted horizontal lines.

    Args:
      groups: The arms and runs, as in the table.
      keys: Held-out metrics by their names in evaluation.json; metrics that were not measured
        during training are left out.
      out: The .svg or .png file to write.

    Raises:
      UserError: If `out` has another suffix, cannot be written or would overwrite another file; or
        if no metric was measured during training.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"{out} is not an .svg or .png file; name one")
    metrics = [m for key in keys if (m := catalogue.find(HELD_OUT_PREFIX + key))]
    panels = [(metric, curves) for metric in metrics if (curves := build_curves(groups, metric))]
    if not panels:
        raise UserError(
            f"no run measured {' or '.join(keys)} during training; set evaluation.every, or choose "
            "other held-out metrics"
        )
    disk_errors.refuse_other(out, SOFTWARE)
    canvas = Canvas(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
    grid = canvas.subplots(1, len(panels), squeeze=False)
    for axes, (metric, curves) in zip(grid[0], panels, strict=True):
        _draw(axes, metric, curves)
    with disk_errors.writing(out):
        atomic_files.write_whole(out, _encode(canvas, out.suffix))


def build_curves(groups: Sequence[Group], metric: Metric) -> list[Curve]:
    """Return a curve per group that has the metric; arms that others start from are one point."""
    starts = {id(_start(run, groups)) for group in groups for run in group.runs}
    curves = []
    for color, group in enumerate(groups):
        if any(id(run) in starts for run in group.runs):
            parts = [_finals(group.runs, metric, at_start=True)]
        else:
            parts = [
                _finals([_start(run, groups) for run in group.runs], metric, at_start=True),
                _measured(group.runs, metric),
                _finals(group.runs, metric),
            ]
        known = [part for part in parts if part is not None]
        if known:
            flops, values = (np.concatenate(part, axis=-1) for part in zip(*known, strict=True))
            _, rows = np.unique(flops, return_index=True)
            curves.append(Curve(group, color, flops[rows], values[:, rows]))
    return curves if any(len(curve.flops) > 1 for curve in curves) else []


def _measured(runs: Sequence[Run], metric: Metric) -> tuple[np.ndarray, np.ndarray] | None:
    """Return FLOPs [points] and values [seeds, points] at the steps that all runs evaluated."""
    lines = [line for run in runs if (line := read_line(run, metric.key)) and len(line.flops)]
    if len(lines) < len(runs):
        return None
    steps = functools.reduce(np.intersect1d, (line.steps for line in lines))
    rows = [np.searchsorted(line.steps, steps) for line in lines]
    flops = [line.flops[row] for line, row in zip(lines, rows, strict=True)]
    values = [line.values[row] for line, row in zip(lines, rows, strict=True)]
    return np.mean(flops, axis=0), np.stack(values)


def _finals(
    runs: Sequence[Run | None], metric: Metric, at_start: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the final values of runs as one point, at the FLOPs that they used or at 0."""
    known = [run for run in runs if run is not None]
    values = [value_in(run.summary, metric) for run in known]
    flops = [0.0 if at_start else run.summary.get("flops") for run in known]
    if len(known) < len(runs) or None in values or None in flops:
        return None
    return np.mean(np.array(flops, np.float64), keepdims=True), np.array(values, np.float64)[
        :, None
    ]


def _start(run: Run, groups: Sequence[Group]) -> Run | None:
    """Return the arm of the same experiment that a run starts from, or None."""
    name = Path(run_reference.checkpoint(str(run.config.get("init_from", ""))).run).name
    arms = (other for group in groups for other in group.runs)
    siblings = (arm for arm in arms if arm.folder.parent == run.folder.parent)
    return next((arm for arm in siblings if arm is not run and arm.folder.name == name), None)


def _draw(axes: Axes, metric: Metric, curves: Sequence[Curve]) -> None:
    for curve in curves:
        color = COLORS[curve.color % len(COLORS)]
        name, mean = plain_label(curve.group.name), curve.values.mean(axis=0)
        if len(curve.flops) == 1:
            axes.axhline(mean[0], color=color, lw=1.2, ls=":", label=name)
            continue
        smallest, largest = curve.values.min(axis=0), curve.values.max(axis=0)
        axes.fill_between(curve.flops, smallest, largest, color=color, alpha=0.18, lw=0)
        dash = DASHES[curve.color % len(DASHES)]
        axes.plot(curve.flops, mean, color=color, lw=1.8, ls=dash, marker="o", ms=3.5, label=name)
    style(axes, metric, "training FLOPs")
    axes.legend(fontsize=8, frameon=False, handlelength=2.6)


def _encode(canvas: Canvas, suffix: str) -> bytes:
    image = io.BytesIO()
    FigureCanvasAgg(canvas)
    with rc_context({"svg.hashsalt": SOFTWARE}):  # reproducible bytes
        canvas.savefig(image, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=FORMATS[suffix])
    return image.getvalue()
