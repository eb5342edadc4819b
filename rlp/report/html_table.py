"""The table of results as HTML: a row per group, a column per metric.

Everything that comes from a file goes through `escape`.
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
    """Text that HTML shows as it is, also inside an attribute."""
    return html.escape(printable(str(text), keep="\n\t"), quote=True)


def distinct(values: Iterable[object]) -> list[str]:
    """The values as text, each once, in order; without those that are None or empty."""
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def objective(group: Group) -> str:
    """What the group was trained on, in the words of the page; empty if its config is gone."""
    name = str(group.runs[0].config.get("objective", ""))
    return {"next_token": "next-token", "rlp": "RLP"}.get(name, name)


def steps(group: Group) -> str:
    """The optimizer steps of the group's runs; the least and the most if seeds differ."""
    counts = sorted({run.summary.get("steps") or 0 for run in group.runs} - {0})
    return (
        "–".join(dict.fromkeys(f"{count:.0f}" for count in (counts[0], counts[-1])))
        if counts
        else ""
    )


def results_table(groups: Sequence[Group]) -> str:
    """A row per group; in a cell the mean over seeds, and below it every seed's own value."""
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
            _cell(metric, column[row], best[place] == row)
            for place, (metric, column) in enumerate(zip(metrics, columns, strict=True))
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
    head = escape(metric.title).replace("-", "&#8209;")  # a hyphen at which no line breaks
    return f'<th scope="col" title="{meaning}">{head}{arrow}{unit}</th>'


def _row_head(group: Group) -> str:
    details = [objective(group), f"{done} steps" if (done := steps(group)) else ""]
    seeds = distinct(run.seed for run in group.runs)
    details.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else "")
    line = " · ".join(escape(part).replace(" ", "&nbsp;") for part in details if part)
    return f'{escape(group.name)}<span class="unit">{line}</span>'


def _cell(metric: Metric, values: Sequence[float | None], best: bool) -> str:
    """A cell; `data-values` carries the values of the seeds in full precision."""
    form, unit = format_of(metric), unit_of(metric)
    middle = escape(format_value(mean(values), form))
    middle = f"<b>{middle}</b>" if best else middle
    seeds = ""
    if len(values) > 1:
        each = "".join(f"<span>{escape(format_value(v, form))}</span>" for v in values)
        seeds = f'<span class="seeds">{each}</span>'
    label = escape(metric.heading + (f" ({unit})" if unit else ""))
    exact = " ".join("null" if value is None else repr(value) for value in values)
    marks = f'data-figure="{escape(metric.name)}" data-values="{exact}" data-label="{label}"'
    return f"<td {marks}>{middle}{seeds}</td>"


def column_meanings(groups: Sequence[Group]) -> str:
    """A list of terms: what every column of the table means."""
    return "".join(
        f"<div><dt>{escape(f'{m.group}, {m.title}')}</dt><dd>{escape(m.meaning)}</dd></div>"
        for m in _shown(groups)
    )


def _shown(groups: Sequence[Group]) -> tuple[Metric, ...]:
    return shown_columns(run.summary for group in groups for run in group.runs)
