"""Prints docs/metrics.md, the catalogue for people: `python -m rlp.metrics > docs/metrics.md`."""

from collections.abc import Iterable, Sequence

from rlp.metrics.catalogue import HELD_OUT, TOTALS, TRAINING
from rlp.metrics.metric import Metric
from rlp.runtime.display import markdown_cell

SECTIONS = {
    "Every step": (
        "In `metrics.jsonl` and TensorBoard. Which of them a step has depends on the objective and "
        "its settings.",
        TRAINING,
    ),
    "Held out": (
        "In `evaluation.json`, and every `evaluation.every` steps in `metrics.jsonl` as "
        "`evaluation/<name>`. `evaluation.best_metric` names one of them.",
        HELD_OUT,
    ),
    "Totals": (
        "What training has used so far, in `metrics.jsonl` and `evaluation.json` (there, the time "
        "is `wall_s.train`).",
        TOTALS,
    ),
}
BETTER = {True: "lower", False: "higher", None: ""}


def page() -> str:
    """The content of docs/metrics.md."""
    parts = [
        "# Metrics",
        "Written by `python -m rlp.metrics` from [`rlp/metrics/catalogue.py`]"
        "(../rlp/metrics/catalogue.py). A share is from 0 to 1. [Adding a metric]"
        "(extending.md#a-metric-5-lines) takes one record.",
    ]
    for title, (words, metrics) in SECTIONS.items():
        parts += [f"## {title}", words, "\n".join(_table(metrics))]
    return "\n\n".join(parts) + "\n"


def _table(metrics: Sequence[Metric]) -> Iterable[str]:
    held_out = any(metric.held_out for metric in metrics)
    head = ("name", "unit", *(("better", "measured on") if held_out else ()), "meaning")
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for metric in metrics:
        title = "" if held_out else f"{metric.title}: "
        more = (BETTER[metric.lower_is_better], metric.measured) if held_out else ()
        meaning = markdown_cell(f"{title}{metric.meaning}")
        yield f"| {' | '.join((f'`{metric.name}`', metric.unit, *more, meaning))} |"


if __name__ == "__main__":
    print(page(), end="")
