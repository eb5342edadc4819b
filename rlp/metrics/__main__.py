"""Print docs/metrics.md from the catalogue: `python -m rlp.metrics > docs/metrics.md`."""

from collections.abc import Iterable, Sequence

from rlp.metrics.catalogue import HELD_OUT, TOTALS, TRAINING
from rlp.metrics.metric import Metric
from rlp.runtime.display import markdown_cell

SECTIONS = {
    "Every step": (
        "Logged to `metrics.jsonl` and TensorBoard at every training step. The objective and its "
        "settings determine which of them are present.",
        TRAINING,
    ),
    "Held out": (
        "Written to `evaluation.json` at the end of the run, and to `metrics.jsonl` as "
        "`evaluation/<name>` every `evaluation.every` steps, those of [benchmarks]"
        "(evaluation.md#while-training) every `evaluation.suite_every` steps. "
        "`evaluation.best_metric` selects the one that picks the best checkpoint.",
        HELD_OUT,
    ),
    "Totals": (
        "What training has used so far, in `metrics.jsonl` and `evaluation.json` (where the "
        "training time is `wall_s.train`).",
        TOTALS,
    ),
}
BETTER = {True: "lower", False: "higher", None: ""}


def page() -> str:
    """Return the content of docs/metrics.md."""
    parts = [
        "# Metrics",
        "`python -m rlp.metrics` generates this page from [`rlp/metrics/catalogue.py`]"
        "(../rlp/metrics/catalogue.py). A share is a number from 0 to 1. [Adding a metric]"
        "(extending.md#a-metric-5-lines) takes one record.",
    ]
    for title, (introduction, metrics) in SECTIONS.items():
        parts += [f"## {title}", introduction, "\n".join(_table(metrics))]
    return "\n\n".join(parts) + "\n"


def _table(metrics: Sequence[Metric]) -> Iterable[str]:
    held_out = any(metric.held_out for metric in metrics)
    head = ("name", "unit", *(("better", "measured on") if held_out else ()), "meaning")
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for metric in metrics:
        title = "" if held_out else f"{metric.title}: "
        extra = (BETTER[metric.lower_is_better], metric.measured) if held_out else ()
        meaning = markdown_cell(f"{title}{metric.meaning}")
        yield f"| {' | '.join((f'`{metric.name}`', metric.unit, *extra, meaning))} |"


if __name__ == "__main__":
    print(page(), end="")
