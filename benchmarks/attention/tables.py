"""What seconds of attention mean: rates, ratios and tables. Needs no jax."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.attention.workload import AttentionSizes
from benchmarks.step import runs
from rlp.capacity.chips import CHIPS, Chip

# Exponentials of an H200 in a second: 16 a clock of each of 132 multiprocessors, at 1.83 GHz.
EXPONENTIALS = {"h200": 16 * 132 * 1.83e9}
BOUNDED = ("h200", "v5e", "v5p", "v6e")
Row = dict[str, Any]  # a JSON object: impl, ours, pass, and refused or pairs and seconds


def rate(rows: Sequence[Row], sizes: AttentionSizes, reached: dict[str, Any]) -> None:
    """Adds rates to the rows that have seconds: medians, of ratios of the same round, too.

    Args:
      rows: of all passes; the first of a pass is what others are compared with.
      sizes: the workload.
      reached: what the machine makes of a large copy and of a large matmul.
    """
    first: dict[str, list[float]] = {}
    for row in rows:
        if "refused" in row:
            continue
        step, seconds = row["pass"], statistics.median(row["seconds"])
        each = [sizes.flops_of(step, row["pairs"]) / second for second in row["seconds"]]
        row["ms"], row["useful_tflop_per_s"] = 1e3 * seconds, statistics.median(each) / 1e12
        row["share_of_matmul"] = row["useful_tflop_per_s"] / reached["matmul_tflop_per_s"]
        if step == "decode":
            row["gb_per_s"] = sizes.decode_bytes() / seconds / 1e9
            row["share_of_copy"] = row["gb_per_s"] / reached["copy_gb_per_s"]
        if row is next(other for other in rows if other["pass"] == step):
            first[step] = each
        if step in first:
            ratios = [a / b for a, b in zip(first[step], each, strict=True)]
            row["first_over_this"] = statistics.median(ratios)


def table(rows: Sequence[Row]) -> str:
    """Of one workload; a ratio above 1 says that the first of a pass does more useful work."""
    header = ["pass", "implementation", "ms (low to high)", "useful TFLOP/s", "of a matmul's"]
    header += ["GB/s that must move", "of a copy's", "first / this"]
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
    """Milliseconds of every pass and implementation, a line for each value of the flag `over`."""
    titles = [f"{row['pass']}: {row['impl']}" for row in measured[0]]
    cells = [
        [str(value), *(f"{row['ms']:.4g}" if "ms" in row else "refused" for row in rows)]
        for value, rows in zip(values, measured, strict=True)
    ]
    return runs.markdown([over, *(f"{title}, ms" for title in titles)], cells)


def bounds(sizes: AttentionSizes, passes: Sequence[str]) -> str:
    """What no implementation can beat, by pass and chip, from the figures of data sheets."""
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
    times = 2 if step == "whole" else 1  # the backward pass computes them again
    rate = EXPONENTIALS.get(chip.name)
    return _ms(times * scores / rate) if rate else ""


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"
