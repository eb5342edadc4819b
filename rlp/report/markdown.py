"""Markdown tables, aligned so that they are also readable in a terminal."""

from collections.abc import Mapping, Sequence

from rlp.metrics.metric import Metric
from rlp.report.columns import (
    COLUMNS,
    Summary,
    format_of,
    format_spread,
    shown_columns,
    unit_of,
    value_in,
)
from rlp.runtime.display import markdown_cell, markdown_code
from rlp.runtime.errors import UserError

HEAD = "run"  # heading of the first column
MARK = rf"\A\| {HEAD} "  # identifies a file that contains such a table


def markdown_table(summaries: Mapping[str, Sequence[Summary]], keys: Sequence[str] = ()) -> str:
    """Return a Markdown table with a row per arm or run and a column per metric.

    A cell shows the mean over seeds [smallest, largest].

    Args:
      summaries: Name of the arm or run -> the summaries of its seeds.
      keys: The metrics to show, by their names in evaluation.json; empty for all of them.

    Raises:
      UserError: If a key is not the name of a metric.
    """
    every = [summary for seeds in summaries.values() for summary in seeds]
    metrics = _chosen(keys, every) if keys else shown_columns(every)
    rows = [[HEAD, *map(_head, metrics)]]
    for name, seeds in summaries.items():
        cells = (format_spread([value_in(s, m) for s in seeds], format_of(m)) for m in metrics)
        rows.append([markdown_code(name), *cells])
    return aligned(rows, words=1)


def aligned(rows: Sequence[Sequence[str]], words: int) -> str:
    """Format an aligned Markdown table.

    Args:
      rows: Rows of cells; the first row is the heading.
      words: The number of text columns, at the left; the other columns contain numbers.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if number < words else "-" * (width - 1) + ":"
        for number, width in enumerate(widths)
    ]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _chosen(keys: Sequence[str], summaries: Sequence[Summary]) -> list[Metric]:
    columns = (m for m in (*COLUMNS, *shown_columns(summaries)) if "<" not in m.name)
    known = {metric.name: metric for metric in columns}
    if unknown := [key for key in keys if key not in known]:
        raise UserError(f"unknown metric {', '.join(unknown)}; use one of {', '.join(known)}")
    return [known[key] for key in keys]


def _head(metric: Metric) -> str:
    unit = unit_of(metric)
    unit = f" ({unit})" if unit not in ("", "share") else ""
    return markdown_cell(f"{metric.group}, {metric.title}{unit}")
