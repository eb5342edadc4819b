"""The figures of the table and the metrics of the plots; and the table for a terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlp.runtime.display import printable

Summary = Mapping[str, Any]
OF_A_FILE = "accuracy/"  # figures of single files of problems, named after them


@dataclass(frozen=True)
class Figure:
    """One column of the table.

    Attributes:
        key: its name in evaluation.json and summary.json.
        family: the head over several columns; empty if none.
        head: the column's own head.
        unit: as written behind the head; empty for a plain share.
        form: how it is written: "share", "nats", "gain", "tokens", "power" (of ten) or "seconds".
        better: +1 if a larger one is better, -1 if a smaller one, 0 if that means nothing.
        meaning: one sentence.
        always: it has a place in the table; otherwise only where some run has it.
    """

    key: str
    family: str
    head: str
    unit: str
    form: str
    better: int
    meaning: str
    always: bool = True


FIGURES = (
    Figure(
        "no_think_accuracy", "Accuracy", "no-think", "", "share", 1,
        "share of held-out targets that are the model's first choice, without a thought",
    ),
    Figure(
        "greedy_think_accuracy", "Accuracy", "greedy thinking", "", "share", 1,
        "the same after the most likely thought",
    ),
    Figure(
        "sampled_think_accuracy", "Accuracy", "sampled thinking", "", "share", 1,
        "the same after a sampled thought, averaged over thoughts",
    ),
    Figure(
        "no_think_loss", "Loss", "no-think", "nats/token", "nats", -1,
        "negative log-probability of the target without a thought",
    ),
    Figure(
        "think_loss", "Loss", "thinking", "nats/token", "nats", -1,
        "the same after a sampled thought",
    ),
    Figure(
        "response_loss", "Loss", "responses", "nats/token", "nats", -1,
        "negative log-probability of the tokens of held-out responses", always=False,
    ),
    Figure(
        "accuracy", "Answers", "right, sampled", "", "share", 1,
        "share of sampled responses to held-out problems with the right answer (pass@1)",
        always=False,
    ),
    Figure(
        "greedy_accuracy", "Answers", "right, greedy", "", "share", 1,
        "the same of greedy responses", always=False,
    ),
    Figure(
        "majority_accuracy", "Answers", "right, majority", "", "share", 1,
        "share of problems whose most common sampled answer is right", always=False,
    ),
    Figure(
        "any_accuracy", "Answers", "right, any", "", "share", 1,
        "share of problems with a right answer among the sampled ones", always=False,
    ),
    Figure(
        "mean_information_gain", "Thoughts", "information gain", "nats", "gain", 1,
        "log-probability of the target with a thought minus without, averaged over thoughts",
    ),
    Figure(
        "thought_length", "Thoughts", "length", "tokens", "tokens", 0,
        "tokens of a thought",
    ),
    Figure(
        "closed_fraction", "Thoughts", "closed", "share", "share", 0,
        "share of thoughts that the model ended itself, within the limit of length",
    ),
    Figure(
        "flops", "Training", "compute", "FLOPs", "power", 0,
        "floating-point operations of this run's training, counted from shapes, not from time",
    ),
    Figure(
        "tokens_documents", "Training", "text", "tokens", "power", 0,
        "tokens of documents that this run's training read, thoughts not counted",
    ),
    Figure(
        "train_seconds", "Training", "time", "s", "seconds", 0,
        "wall-clock time of this run's training",
    ),
    Figure(
        "seconds_device", "Training", "device time", "s", "seconds", 0,
        "the same times the number of devices that it ran on",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One plot.

    Attributes:
        key: of metrics.jsonl.
        title: over the plot.
        unit: of the vertical axis; "share" is drawn from 0 to 1.
        meaning: one line under the title.
        held_out: measured on held-out documents now and then, so drawn with points.
    """

    key: str
    title: str
    unit: str
    meaning: str
    held_out: bool = False


METRICS = (
    Metric("information_gain", "Information gain", "nats", "mean over thoughts; above 0 they help"),
    Metric("reward_positive_share", "Rewards above 0", "share", "thoughts that help at all"),
    Metric("accuracy", "Right answers", "share", "of the responses to training problems"),
    Metric("thought_length", "Thought length", "tokens", "mean over thoughts"),
    Metric("closed_fraction", "Closed thoughts", "share", "ended by the model within the limit"),
    Metric("thought_entropy", "Entropy of thoughts", "nats/token", "near 0 nothing new is tried"),
    Metric("zero_variance_share", "Groups without variance", "share", "these give no gradient"),
    Metric("distinct_thoughts", "Distinct thoughts", "share", "of the thoughts of one position"),
    Metric("target_named_share", "Thoughts with the target", "share", "hold the text that follows"),
    Metric("decode_use", "Decoding in use", "share", "decoded tokens that belong to a thought"),
    Metric("grad_norm", "Gradient norm", "", "before clipping"),
    Metric("no_think_loss", "No-think loss", "nats/token", "training documents, without thoughts"),
    Metric("loss", "Next-token loss", "nats/token", "the loss that these runs train on"),
    *(
        Metric(
            f"evaluation/{figure.key}",
            f"{figure.family}: {figure.head}",
            figure.unit or "share",
            figure.meaning,
            held_out=True,
        )
        for figure in FIGURES
        if figure.family != "Training"
    ),
)

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shown_figures(summaries: Iterable[Summary]) -> tuple[Figure, ...]:
    """The figures that a table of these summaries has."""
    known = {
        key: None for summary in summaries for key, value in summary.items() if value is not None
    }
    of_files = [_of_a_file(key) for key in known if key.startswith(OF_A_FILE)]
    last = max(n for n, figure in enumerate(FIGURES) if figure.family == "Answers")
    every = (*FIGURES[: last + 1], *of_files, *FIGURES[last + 1 :])
    return tuple(figure for figure in every if figure.always or figure.key in known)


def _of_a_file(key: str) -> Figure:
    """Share of right answers to the problems of one file."""
    name = key.removeprefix(OF_A_FILE)
    meaning = f"share of sampled responses to the problems of {name} with the right answer"
    return Figure(key, "Answers", f"right, {name}", "", "share", 1, meaning, always=False)


def figure_value(summary: Summary, figure: Figure) -> float | None:
    """The figure in a summary, or None where it is not known."""
    if figure.key == "train_seconds":
        wall = summary.get("wall_s")
        return wall.get("train") if isinstance(wall, dict) else None
    value = summary.get(figure.key)
    return None if value is None else float(value)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values, or None if none is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def format_figure(value: float | None, form: str, plain: bool = False) -> str:
    """A figure as text. `plain` keeps to ASCII, for terminals."""
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


def clearly_best(columns: Sequence[Sequence[float | None]], better: int) -> int | None:
    """The row that is best beyond what its seeds leave open, or None.

    Args:
        columns: for every row, the figure of each of its seeds.
        better: +1 or -1, the sign of an improvement; 0 if there is none.

    Returns:
        The row of which every seed beats every seed of every other row, if all rows have three
        seeds or more: fewer can part by luck too easily to say so.
    """
    if better == 0 or len(columns) < 2:
        return None
    known = [[better * v for v in row if v is not None and math.isfinite(v)] for row in columns]
    if any(len(kept) < max(3, len(row)) for kept, row in zip(known, columns, strict=True)):
        return None
    best = max(range(len(known)), key=lambda row: min(known[row]))
    others = (value for row, values in enumerate(known) if row != best for value in values)
    return best if min(known[best]) > max(others) else None


def terminal_table(summaries: Mapping[str, Summary | Sequence[Summary]], width: int = 100) -> str:
    """The figures as aligned plain text: a line per figure, a column per arm or run.

    Args:
        summaries: name of the arm or run -> its summary (the form of an arm in summary.json or of
            evaluation.json), or the summaries of its seeds: then the mean is shown, with the
            smallest and the largest of them behind it.
        width: characters after which further columns go below.
    """
    seeds = [
        (printable(name), [s] if isinstance(s, Mapping) else list(s))
        for name, s in summaries.items()
    ]
    figures = shown_figures(summary for _, rows in seeds for summary in rows)
    labels = [
        " ".join(filter(None, (f.family, printable(f.head), f"({f.unit})" if f.unit else "")))
        for f in figures
    ]
    left = max(map(len, labels))
    columns = []
    for name, rows in seeds:
        cells = [format_spread([figure_value(row, f) for row in rows], f.form) for f in figures]
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


def format_spread(values: Sequence[float | None], form: str) -> str:
    """The mean of seeds, with the smallest and the largest of them behind it where they differ."""
    text = format_figure(mean(values), form, plain=True)
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return text
    ends = [format_figure(value, form, plain=True) for value in (min(known), max(known))]
    return text if ends[0] == ends[1] else f"{text} [{ends[0]}, {ends[1]}]"
