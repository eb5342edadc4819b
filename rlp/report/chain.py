"""The table of a pipeline: the held-out metrics of every start, alone and after later stages."""

from collections.abc import Mapping

from rlp.metrics.metric import Metric
from rlp.report.columns import Summary, format_of, format_value, shown_columns, value_in
from rlp.report.markdown import aligned
from rlp.runtime.display import markdown_cell

ALONE = ""  # the stage of a start itself
_HEAD = ("held-out metric", "start")


def arm_stages(sources: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the start and the stage of every arm.

    An arm named "<start>_<stage>" that is initialized from an arm of this start is a later stage of
    it; any other arm is a start.

    Args:
      sources: Arm -> the arm that it is initialized from, or ""; sources precede their users.
    """
    stages: dict[str, tuple[str, str]] = {}
    for arm, source in sources.items():
        start = stages[source][0] if source else ""
        later = bool(start) and arm.startswith(f"{start}_")
        stages[arm] = (start, arm.removeprefix(f"{start}_")) if later else (arm, ALONE)
    return stages


def chain_table(
    placed: Mapping[str, tuple[str, str]],
    summaries: Mapping[str, Summary],
    published: Mapping[str, Mapping[str, float]],
) -> str:
    """Return a Markdown table with a row per held-out metric and start, and a column per stage.

    Shares are in percent. A metric that no arm has is left out, even if it is in `published`.

    Args:
      placed: Arm -> its start and its stage.
      summaries: Arm -> its metrics, in the form of an arm in summary.json.
      published: Arm -> published values, with the same names and units, shown in parentheses.
    """
    arms = {start_and_stage: arm for arm, start_and_stage in placed.items()}
    starts = list(dict.fromkeys(start for start, _ in placed.values()))
    stages = list(dict.fromkeys(stage for _, stage in placed.values()))
    rows = [[*_HEAD, *(f"+ {markdown_cell(stage)}" if stage else "alone" for stage in stages)]]
    for metric in _compared(summaries):
        for start in starts:
            cells = []
            for stage in stages:
                arm = arms.get((start, stage), "")
                reference = published.get(arm, {}).get(metric.name)
                cells.append(_cell(value_in(summaries.get(arm, {}), metric), reference, metric))
            rows.append([_label(metric), markdown_cell(start), *cells])
    return aligned(rows, words=len(_HEAD))


def _compared(summaries: Mapping[str, Summary]) -> list[Metric]:
    """Return the held-out metrics that some arm has and of which one direction is better."""
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
