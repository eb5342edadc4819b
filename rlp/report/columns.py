"""The columns of tables of results: which metrics they show, and how a value is written."""

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
    """The columns that a table of these summaries has.

    Those of documents and totals are always there, the others where some summary has them.
    """
    known = {
        key: None for summary in summaries for key, value in summary.items() if value is not None
    }
    found: list[Metric] = []
    for metric in COLUMNS:
        if metric.measured in ("documents", "total"):
            found.append(metric)
        else:
            found += filter(
                None, (catalogue.find(HELD_OUT_PREFIX + key, [metric]) for key in known)
            )
    return tuple(found)


def value_in(summary: Summary, metric: Metric) -> float | None:
    """The value of a metric in a summary, or None where it is not known."""
    if metric.name == "train_seconds":
        wall = summary.get("wall_s")
        return wall.get("train") if isinstance(wall, dict) else None
    value = summary.get(metric.name)
    return None if value is None else float(value)


def unit_of(metric: Metric) -> str:
    """The unit behind the head of a column; "" for accuracies, which are always shares."""
    return "" if metric.group in ("Accuracy", "Answers") else metric.unit


def format_of(metric: Metric) -> str:
    """How values of a metric are written, as `format_value` takes it."""
    if metric.measured == "total":
        return "seconds" if metric.unit == "s" else "power"
    return {"nats": "gain", "tokens": "tokens"}.get(metric.unit, "")


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values, or None if none is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def format_value(value: float | None, form: str, plain: bool = False) -> str:
    """A value as text.

    Args:
        value: None where it is not known.
        form: "power" (of ten), "seconds", "tokens", "gain" (with its sign) or "" (three decimals).
        plain: keeps to ASCII, for terminals.
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
    """The row that is best beyond what its seeds leave open, or None.

    Args:
        columns: for every row, the values of its seeds.
        lower_is_better: None where neither is better.

    Returns:
        The row of which every seed beats every seed of every other row, if all rows have three
        seeds or more: fewer can part by luck too easily to say so.
    """
    if lower_is_better is None or len(columns) < 2:
        return None
    better = -1 if lower_is_better else 1
    known = [[better * v for v in row if v is not None and math.isfinite(v)] for row in columns]
    if any(len(kept) < max(3, len(row)) for kept, row in zip(known, columns, strict=True)):
        return None
    best = max(range(len(known)), key=lambda row: min(known[row]))
    others = (value for row, values in enumerate(known) if row != best for value in values)
    return best if min(known[best]) > max(others) else None


def format_spread(values: Sequence[float | None], form: str) -> str:
    """The mean of seeds, with the smallest and the largest of them behind it where they differ."""
    text = format_value(mean(values), form, plain=True)
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return text
    ends = [format_value(value, form, plain=True) for value in (min(known), max(known))]
    return text if ends[0] == ends[1] else f"{text} [{ends[0]}, {ends[1]}]"
