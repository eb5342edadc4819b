"""Plots as PNG files, for papers and slides: one per metric, and an overview of all of them."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from rlp.metrics.metric import Metric
from rlp.report.compare import Group
from rlp.report.curves import Line, Plot, build_plots, extremes, smooth
from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.display import printable

# The Okabe-Ito palette, safe for color vision deficiency; dashes distinguish lines in grayscale.
COLORS = ("#6b6b6b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#000000")
DASHES = ("-", "-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.4, 1.5)))
PANEL = (4.6, 3.1)  # inches
DOTS_PER_INCH = 130
INLINE_DOTS_PER_INCH = 55  # of the overview in a notebook
MOST_POINTS = 4000  # per line: three times as many bins of two points as the plot has pixels
SOFTWARE = "rlp.report"  # metadata that identifies our files
OVERVIEW = "overview"


def write_plots(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write `<metric>.png` for every metric that some run has, and `overview.png`.

    Returns:
      The files, in order. If no run has metrics, returns [] and does not create the folder.

    Raises:
      UserError: If a plot would overwrite a file that is not a plot; nothing is written then.
    """
    plots = build_plots(groups)
    if not plots:
        return []
    names = [plot.metric.key.replace("/", "_") for plot in plots]
    paths = [folder / f"{name}.png" for name in (*names, OVERVIEW)]
    for path in paths:
        disk_errors.refuse_other(path, SOFTWARE)
    folder.mkdir(parents=True, exist_ok=True)
    for plot, path in zip(plots, paths, strict=False):
        canvas = Canvas(figsize=PANEL, layout="constrained")
        axes = canvas.add_subplot()
        _draw(axes, plot)
        if len(groups) > 1:
            axes.legend(fontsize=7, frameon=False, handlelength=2.6)
        _save(canvas, path)
    _save(_overview(plots, groups), paths[-1])
    return paths


def overview_png(groups: Sequence[Group]) -> bytes | None:
    """Return a small PNG image with all plots, or None if no run has metrics."""
    plots = build_plots(groups)
    return _png(_overview(plots, groups), INLINE_DOTS_PER_INCH) if plots else None


def _overview(plots: Sequence[Plot], groups: Sequence[Group]) -> Canvas:
    across = min(4, len(plots))
    down = math.ceil(len(plots) / across)
    canvas = Canvas(figsize=(across * PANEL[0] * 0.8, down * PANEL[1] * 0.8), layout="constrained")
    grid = canvas.subplots(down, across, squeeze=False)
    handles: dict[str, Artist] = {}
    for number, axes in enumerate(grid.flat):
        if number < len(plots):
            _draw(axes, plots[number])
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        else:
            axes.set_axis_off()
    names = [name for group in groups if (name := plain_label(group.name)) in handles]
    if len(groups) > 1:
        canvas.legend(
            [handles[name] for name in names],
            names,
            loc="outside upper left",
            ncols=5,
            frameon=False,
            fontsize=9,
        )
    return canvas


def _draw(axes: Axes, plot: Plot) -> None:
    """Draw a plot: thin lines for every seed and logged step, thick lines for the running mean."""
    metric = plot.metric
    use_flops = all(len(line.flops) for series in plot.series for line in series.lines)

    def points(line: Line) -> tuple[np.ndarray, np.ndarray]:
        drawn = extremes(line, MOST_POINTS)
        return drawn.flops if use_flops else drawn.steps, drawn.values

    marker = "o" if metric.held_out else None
    for series in plot.series:
        color = COLORS[series.color % len(COLORS)]
        dash = DASHES[series.color % len(DASHES)]
        for line in series.lines:
            axes.plot(*points(line), color=color, lw=0.6, alpha=0.45)
        bold = series.mean if metric.held_out else smooth(series.mean)
        axes.plot(
            *points(bold), color=color, lw=1.6, ls=dash, label=plain_label(series.name),
            marker=marker, ms=3.5,
        )  # fmt: skip
    if metric.key == "information_gain":
        axes.axhline(0, color="#999999", lw=0.6)
    style(axes, metric, "training FLOPs" if use_flops else "step")


def style(axes: Axes, metric: Metric, across: str) -> None:
    """Give a panel its title, labels and limits; `across` is the label of the horizontal axis."""
    if metric.unit == "share":
        axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)
    title = f"{metric.heading} (held out)" if metric.held_out else metric.title
    axes.set_title(title, loc="left", fontsize=9.5)
    axes.set_ylabel(metric.unit, fontsize=8)
    axes.set_xlabel(across, fontsize=8)
    axes.tick_params(labelsize=7.5, length=3, color="#888888")
    axes.xaxis.get_offset_text().set_fontsize(7.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")


def plain_label(name: str) -> str:
    """Escape a name for matplotlib, which would parse text between dollar signs as a formula."""
    return printable(name).replace("$", r"\$")


def _save(canvas: Canvas, path: Path) -> None:
    atomic_files.write_whole(path, _png(canvas))


def _png(canvas: Canvas, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    FigureCanvasAgg(canvas)
    image = io.BytesIO()
    canvas.savefig(image, dpi=dots_per_inch, format="png", metadata={"Software": SOFTWARE})
    return image.getvalue()
