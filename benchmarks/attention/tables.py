"""Rates, ratios and tables from the seconds of attention. Does not import jax."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import runs
from benchmarks.attention.workload import AttentionSizes
from rlp.capacity.chips import CHIPS, Chip

# Exponentials per second of an H200: 16 per cycle on each of 132 multiprocessors, at 1.83 GHz.
EXPONENTIALS = {"h200": 16 * 132 * 1.83e9}
BOUNDED = ("h200", "v5e", "v5p", "v6e")
Row = dict[str, Any]  # a JSON object: impl, ours, pass, and either refused or pairs and seconds


def rate(rows: Sequence[Row], sizes: AttentionSizes, device: dict[str, Any]) -> None:
    """Add rates to the rows that have seconds: medians over rounds, also of ratios within a round.

    Args:
      rows: of all passes; the others of a pass are compared with its first row.
      sizes: the workload.
      device: measured rates of a large copy and a large matmul (`timing.machine`, `timing.matmul`).
    """
    first: dict[str, list[float]] = {}
    for row in rows:
        if "refused" in row:
            continue
        step, seconds = row["pass"], statistics.median(row["seconds"])
        rates = [sizes.flops_of(step, row["pairs"]) / second for second in row["seconds"]]
        row["ms"], row["useful_tflop_per_s"] = 1e3 * seconds, statistics.median(rates) / 1e12
        row["share_of_matmul"] = row["useful_tflop_per_s"] / device["matmul_tflop_per_s"]
        if step == "decode":
            row["gb_per_s"] = sizes.decode_bytes() / seconds / 1e9
            row["share_of_copy"] = row["gb_per_s"] / device["copy_gb_per_s"]
        if row is next(other for other in rows if other["pass"] == step):
            first[step] = rates
        if step in first:
            ratios = [a / b for a, b in zip(first[step], rates, strict=True)]
            row["first_over_this"] = statistics.median(ratios)


def table(rows: Sequence[Row]) -> str:
    """Return the table of one workload.

    A ratio above 1 means that the first implementation of a pass does more useful work per second.
    """
    header = ["pass", "implementation", "ms (low to high)", "useful TFLOP/s", "% of a matmul"]
    header += ["required GB/s", "% of a copy", "first / this"]
    cells = []
    for row in rows:
        line = [row["pass"], row["impl"]]
        if "refused" in row:
            cells.append([*line, f"refused: {row['refused']}", *[""] * 5])
            continue
        spread = f"{_ms(min(row['seconds']))} to {_ms(max(row['seconds']))}"
        line += [f"{row['ms']:.4g} ({spread})", f"{row['useful_tflop_per_s']:.4g}"]
        line += [f"{100 * row['share_of_matmul']:.1f}%"]
        moved = row["pass"] == "decode"
        line += [f"{row['gb_per_s']:.4g}" if moved else ""]
        line += [f"{100 * row['share_of_copy']:.1f}%" if moved else ""]
        cells.append([*line, f"{row['first_over_this']:.2f}×" if "first_over_this" in row else ""])
    return runs.markdown(header, cells)


def sweep(over: str, values: Sequence[int], measured: Sequence[Sequence[Row]]) -> str:
    """Return milliseconds of every pass and implementation, a row for each value of a flag.

    Args:
      over: name of the flag.
      values: its values.
      measured: rows of each workload.
    """
    titles = [f"{row['pass']}: {row['impl']}" for row in measured[0]]
    cells = [
        [str(value), *(f"{row['ms']:.4g}" if "ms" in row else "refused" for row in rows)]
        for value, rows in zip(values, measured, strict=True)
    ]
    return runs.markdown([over, *(f"{title}, ms" for title in titles)], cells)


def bounds(sizes: AttentionSizes, passes: Sequence[str]) -> str:
    """Return a table of lower bounds of the time by pass and chip, from their data sheets."""
    header = ["pass", "visible pairs", "useful TFLOP", "GB", "chip", "arithmetic ms", "bytes ms"]
    cells = []
    for step in passes:
        pairs, flops, moved = sizes.pairs(step == "decode"), sizes.flops(step), sizes.bytes(step)
        for chip in (CHIPS[name] for name in BOUNDED):
            line = [step, f"{pairs:.4g}", f"{flops / 1e12:.4g}", f"{moved / 1e9:.4g}", chip.name]
            line += [_ms(flops / chip.flops), _ms(moved / chip.bandwidth)]
            cells.append([*line, _exponentials(chip, step, pairs * sizes.heads)])
    return runs.markdown([*header, "exponentials ms"], cells)


def _exponentials(chip: Chip, step: str, scores: int) -> str:
    times = 2 if step == "whole" else 1  # the backward pass recomputes them
    rate = EXPONENTIALS.get(chip.name)
    return _ms(times * scores / rate) if rate else ""


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"
