"""The results table as HTML: a row per group, a column per metric.

All text from files is escaped by `escape`.
"""

import html
from collections.abc import Iterable, Sequence

from rlp.metrics.metric import Metric
from rlp.report.columns import (
    clearly_best,
    format_of,
    format_value,
    mean,
    shown_columns,
    unit_of,
    value_in,
)
from rlp.report.compare import Group
from rlp.runtime.display import printable


def escape(text: object) -> str:
    """Escape text for HTML, including attribute values."""
    return html.escape(printable(str(text), keep="\n\t"), quote=True)


def distinct(values: Iterable[object]) -> list[str]:
    """Return the values as text, in order, without duplicates, None and empty ones."""
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def objective(group: Group) -> str:
    """Return the name of the group's objective for the page; "" if its config is missing."""
    name = str(group.runs[0].config.get("objective", ""))
    return {"next_token": "next-token", "rlp": "RLP"}.get(name, name)


def steps(group: Group) -> str:
    """Return the number of steps of the group's runs, as a range if seeds differ."""
    counts = sorted({run.summary.get("steps") or 0 for run in group.runs} - {0})
    return (
        "–".join(dict.fromkeys(f"{count:.0f}" for count in (counts[0], counts[-1])))
        if counts
        else ""
    )


def results_table(groups: Sequence[Group]) -> str:
    """Return a table with a row per group; a cell shows the mean over seeds and every value."""
    metrics = _shown(groups)
    families: dict[str, int] = {}
    for metric in metrics:
        families[metric.group] = families.get(metric.group, 0) + 1
    upper = "".join(
        f'<th colspan="{span}" scope="colgroup">{escape(name)}</th>'
        for name, span in families.items()
    )
    columns = [[[value_in(run.summary, m) for run in g.runs] for g in groups] for m in metrics]
    best = [clearly_best(c, m.lower_is_better) for c, m in zip(columns, metrics, strict=True)]
    body = ""
    for row, group in enumerate(groups):
        cells = "".join(
            _cell(metric, column[row], best[index] == row)
            for index, (metric, column) in enumerate(zip(metrics, columns, strict=True))
        )
        body += f'<tr><th scope="row">{_row_head(group)}</th>{cells}</tr>\n'
    return (
        f'<thead><tr class="families"><td></td>{upper}</tr>\n'
        f'<tr><th scope="col">model</th>{"".join(map(_column_head, metrics))}</tr></thead>\n'
        f"<tbody>{body}</tbody>"
    )


def _column_head(metric: Metric) -> str:
    arrow = {False: "&nbsp;↑", True: "&nbsp;↓", None: ""}[metric.lower_is_better]
    unit = f'<span class="unit">{escape(unit)}</span>' if (unit := unit_of(metric)) else ""
    meaning = escape(metric.meaning)
    head = escape(metric.title).replace("-", "&#8209;")  # a non-breaking hyphen
    return f'<th scope="col" title="{meaning}">{head}{arrow}{unit}</th>'


def _row_head(group: Group) -> str:
    details = [objective(group), f"{done} steps" if (done := steps(group)) else ""]
    seeds = distinct(run.seed for run in group.runs)
    details.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else "")
    line = " · ".join(escape(part).replace(" ", "&nbsp;") for part in details if part)
    return f'{escape(group.name)}<span class="unit">{line}</span>'


def _cell(metric: Metric, values: Sequence[float | None], best: bool) -> str:
    """Return a cell; `data-values` contains the values of the seeds in full precision."""
    form, unit = format_of(metric), unit_of(metric)
    middle = escape(format_value(mean(values), form))
    middle = f"<b>{middle}</b>" if best else middle
    seeds = ""
    if len(values) > 1:
        spans = "".join(f"<span>{escape(format_value(v, form))}</span>" for v in values)
        seeds = f'<span class="seeds">{spans}</span>'
    label = escape(metric.heading + (f" ({unit})" if unit else ""))
    exact = " ".join("null" if value is None else repr(value) for value in values)
    attributes = f'data-metric="{escape(metric.name)}" data-values="{exact}" data-label="{label}"'
    return f"<td {attributes}>{middle}{seeds}</td>"


def column_meanings(groups: Sequence[Group]) -> str:
    """Return a description list with the meaning of every column of the table."""
    return "".join(
        f"<div><dt>{escape(f'{m.group}, {m.title}')}</dt><dd>{escape(m.meaning)}</dd></div>"
        for m in _shown(groups)
    )


def _shown(groups: Sequence[Group]) -> tuple[Metric, ...]:
    return shown_columns(run.summary for group in groups for run in group.runs)
