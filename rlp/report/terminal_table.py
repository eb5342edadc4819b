"""The results table for a terminal: a line per metric, a column per arm or run."""

from collections.abc import Mapping, Sequence

from rlp.report.columns import Summary, format_of, format_spread, shown_columns, unit_of, value_in
from rlp.runtime.display import printable


def terminal_table(summaries: Mapping[str, Summary | Sequence[Summary]], width: int = 100) -> str:
    """Format the metrics as aligned plain text: a line per metric, a column per arm or run.

    Args:
        summaries: Name of the arm or run -> its summary (in the form of an arm in summary.json or
            of evaluation.json), or the summaries of its seeds, shown as mean [smallest, largest].
        width: The most characters per line; further columns follow in another block below.
    """
    seeds = [
        (printable(name), [s] if isinstance(s, Mapping) else list(s))
        for name, s in summaries.items()
    ]
    metrics = shown_columns(summary for _, rows in seeds for summary in rows)
    labels = [
        " ".join(filter(None, (m.group, printable(m.title), f"({unit})" if unit else "")))
        for m in metrics
        for unit in [unit_of(m)]
    ]
    left = max(map(len, labels))
    columns = []
    for name, rows in seeds:
        cells = [format_spread([value_in(row, m) for row in rows], format_of(m)) for m in metrics]
        size = max(map(len, [name, *cells]))
        columns.append([text.rjust(size) for text in [name, *cells]])
    blocks: list[list[list[str]]] = []
    used = width
    for column in columns:
        used += 2 + len(column[0])
        if not blocks or used > width:
            blocks.append([])
            used = left + 2 + len(column[0])
        blocks[-1].append(column)
    heads = [label.ljust(left) for label in ["", *labels]]
    return "\n\n".join(
        "\n".join("  ".join(cells).rstrip() for cells in zip(heads, *block, strict=True))
        for block in blocks
    )
