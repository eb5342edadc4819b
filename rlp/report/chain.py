"""The table of a chain: what every start has come to, alone and after each later stage."""

from collections.abc import Mapping

from rlp.metrics.metric import Metric
from rlp.report.columns import Summary, format_of, format_value, shown_columns, value_in
from rlp.report.markdown import aligned
from rlp.runtime.display import markdown_cell

ALONE = ""  # the stage of a start itself
_HEAD = ("held-out figure", "start")


def arm_stages(sources: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Start and stage of every arm.

    An arm that starts from another one and is called "<start>_<stage>" after the start of that one
    is a later stage of it; any other arm is a start.

    Args:
      sources: every arm to the arm that it starts from, or ""; each after that one.
    """
    placed: dict[str, tuple[str, str]] = {}
    for arm, source in sources.items():
        start = placed[source][0] if source else ""
        later = bool(start) and arm.startswith(f"{start}_")
        placed[arm] = (start, arm.removeprefix(f"{start}_")) if later else (arm, ALONE)
    return placed


def chain_table(
    placed: Mapping[str, tuple[str, str]],
    summaries: Mapping[str, Summary],
    published: Mapping[str, Mapping[str, float]],
) -> str:
    """A Markdown table: a row per held-out figure and start, a column per stage.

    Shares are in percent. A figure that no arm has is left out, whatever is published of it.

    Args:
      placed: of every arm, its start and its stage.
      summaries: arm to its figures, the form of an arm in summary.json.
      published: arm to figures, by the same names and in the same units, to stand in brackets.
    """
    arms = {place: arm for arm, place in placed.items()}
    starts = list(dict.fromkeys(start for start, _ in placed.values()))
    stages = list(dict.fromkeys(stage for _, stage in placed.values()))
    rows = [[*_HEAD, *(f"+ {markdown_cell(stage)}" if stage else "alone" for stage in stages)]]
    for metric in _compared(summaries):
        for start in starts:
            cells = []
            for stage in stages:
                arm = arms.get((start, stage), "")
                beside = published.get(arm, {}).get(metric.name)
                cells.append(_cell(value_in(summaries.get(arm, {}), metric), beside, metric))
            rows.append([_label(metric), markdown_cell(start), *cells])
    return aligned(rows, words=len(_HEAD))


def _compared(summaries: Mapping[str, Summary]) -> list[Metric]:
    """What is measured of held-out text or problems and has a better and a worse."""
    known = {key for summary in summaries.values() for key in summary if summary[key] is not None}
    columns = shown_columns(summaries.values())
    return [m for m in columns if m.name in known and m.lower_is_better is not None]


def _label(metric: Metric) -> str:
    unit = "%" if metric.unit == "share" else metric.unit
    return markdown_cell(f"{metric.group}, {metric.title} ({unit})")


def _cell(value: float | None, published: float | None, metric: Metric) -> str:
    if value is None:
        return "-"
    text = _text(value, metric)
    return text if published is None else f"{text} ({_text(published, metric)})"


def _text(value: float, metric: Metric) -> str:
    if metric.unit == "share":
        return f"{100 * value:.2f}"
    return format_value(value, format_of(metric), plain=True)
