"""The table of a chain: what every start has come to, alone and after each later stage."""

from collections.abc import Mapping

from rlp.report.figures import Figure, Summary, figure_value, format_figure, shown_figures
from rlp.report.markdown import aligned
from rlp.runtime.display import markdown_cell

ALONE = ""  # the stage of a start itself
_HEAD = ("held-out figure", "start")


def places(sources: Mapping[str, str]) -> dict[str, tuple[str, str]]:
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
    for figure in _figures(summaries):
        for start in starts:
            cells = []
            for stage in stages:
                arm = arms.get((start, stage), "")
                beside = published.get(arm, {}).get(figure.key)
                cells.append(_cell(figure_value(summaries.get(arm, {}), figure), beside, figure))
            rows.append([_label(figure), markdown_cell(start), *cells])
    return aligned(rows, words=len(_HEAD))


def _figures(summaries: Mapping[str, Summary]) -> list[Figure]:
    """What is measured of held-out text or problems and has a better and a worse."""
    known = {key for summary in summaries.values() for key in summary if summary[key] is not None}
    return [f for f in shown_figures(summaries.values()) if f.key in known and f.better]


def _label(figure: Figure) -> str:
    unit = "%" if figure.form == "share" else figure.unit
    return markdown_cell(f"{figure.family}, {figure.head} ({unit})")


def _cell(value: float | None, published: float | None, figure: Figure) -> str:
    if value is None:
        return "-"
    text = _text(value, figure)
    return text if published is None else f"{text} ({_text(published, figure)})"


def _text(value: float, figure: Figure) -> str:
    if figure.form == "share":
        return f"{100 * value:.2f}"
    return format_figure(value, figure.form, plain=True)
