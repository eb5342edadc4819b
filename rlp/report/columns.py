"""The columns of result tables: which metrics they show, and how values are formatted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlp.metrics import catalogue
from rlp.metrics.metric import HELD_OUT_PREFIX, Metric

Summary = Mapping[str, Any]

# Every metric that can have a column, in the order of tables.
COLUMNS = tuple(m for m in (*catalogue.HELD_OUT, *catalogue.TOTALS) if m.shown)

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shown_columns(summaries: Iterable[Summary]) -> tuple[Metric, ...]:
    """Return the columns of a table of these summaries.

    Metrics of documents and totals always have a column; others only if some summary has them.
    """
    known = {
        key: None for summary in summaries for key, value in summary.items() if value is not None
    }
    columns: list[Metric] = []
    for metric in COLUMNS:
        if metric.measured in ("documents", "total"):
            columns.append(metric)
        else:
            columns += filter(
                None, (catalogue.find(HELD_OUT_PREFIX + key, [metric]) for key in known)
            )
    return tuple(columns)


def value_in(summary: Summary, metric: Metric) -> float | None:
    """Return the value of a metric in a summary, or None if it is not known."""
    if metric.name == "train_seconds":
        wall = summary.get("wall_s")
        return wall.get("train") if isinstance(wall, dict) else None
    value = summary.get(metric.name)
    return None if value is None else float(value)


def unit_of(metric: Metric) -> str:
    """Return the unit in a column's heading; "" for accuracies, which are always shares."""
    return "" if metric.group in ("Accuracy", "Answers", "Benchmarks") else metric.unit


def format_of(metric: Metric) -> str:
    """Return how values of a metric are formatted: the `form` argument of `format_value`."""
    if metric.measured == "total":
        return "seconds" if metric.unit == "s" else "power"
    return {"nats": "gain", "tokens": "tokens"}.get(metric.unit, "")


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values, or None if none is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def format_value(value: float | None, form: str, plain: bool = False) -> str:
    """Format a value as text.

    Args:
        value: The value; None if it is not known.
        form: "power" (of ten), "seconds", "tokens", "gain" (with its sign) or "" (three decimals).
        plain: Use only ASCII, for terminals.
    """
    if value is None:
        return "-" if plain else "–"
    if not math.isfinite(value):
        return str(value)
    if form == "power":
        text = _scientific(value, plain)
    elif form == "seconds":
        text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    elif form == "tokens":
        text = f"{value:.1f}"
    else:
        text = f"{value:+.3f}" if form == "gain" else f"{value:.3f}"
    return text if plain else text.replace("-", "−")


def _scientific(value: float, plain: bool) -> str:
    if value == 0:
        return "0"
    digits, exponent = f"{value:.2e}".split("e")
    power = str(int(exponent))
    return f"{digits}e{power}" if plain else f"{digits}×10{power.translate(_SUPERSCRIPTS)}"


def clearly_best(
    columns: Sequence[Sequence[float | None]], lower_is_better: bool | None
) -> int | None:
    """Return the row that is best for every choice of seeds, or None.

    Args:
        columns: For every row, the values of its seeds.
        lower_is_better: None if neither direction is better.

    Returns:
        The index of the row of which every seed beats every seed of every other row. None if there
        is no such row or a row has fewer than three seeds, which separate too easily by chance.
    """
    if lower_is_better is None or len(columns) < 2:
        return None
    better = -1 if lower_is_better else 1
    known = [[better * v for v in row if v is not None and math.isfinite(v)] for row in columns]
    if any(len(values) < max(3, len(row)) for values, row in zip(known, columns, strict=True)):
        return None
    best = max(range(len(known)), key=lambda row: min(known[row]))
    others = (value for row, values in enumerate(known) if row != best for value in values)
    return best if min(known[best]) > max(others) else None


def format_spread(values: Sequence[float | None], form: str) -> str:
    """Format the mean over seeds, followed by [smallest, largest] if they differ."""
    text = format_value(mean(values), form, plain=True)
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return text
    ends = [format_value(value, form, plain=True) for value in (min(known), max(known))]
    return text if ends[0] == ends[1] else f"{text} [{ends[0]}, {ends[1]}]"
