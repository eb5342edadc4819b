"""The record of one metric, which the run, the report, the checks and the documentation share."""

import dataclasses
from typing import Literal

HELD_OUT_PREFIX = "evaluation/"  # prefix of held-out metrics in metrics.jsonl

# What a metric is measured on: a training step, the run up to a step ("total"), held-out documents,
# held-out responses of prompt-response pairs, held-out problems, or benchmarks.
Measured = Literal["step", "total", "documents", "responses", "problems", "benchmarks"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a run measures.

    Attributes:
      name: Key in metrics.jsonl, or in evaluation.json for a held-out metric (metrics.jsonl has it
        as evaluation/<name>). A part in angle brackets matches any text, as in "seconds_<stage>".
      title: Title of its plot and of its column in result tables.
      unit: "nats", "nats/token", "tokens", "share" (from 0 to 1), "s", …; "" for a plain number.
      meaning: One phrase that explains it.
      measured: What it is measured on.
      lower_is_better: None if neither direction is better.
      group: Heading that its column shares with related metrics.
      shown: Whether reports plot it and show a column; the files always contain it.
    """

    name: str
    title: str
    unit: str
    meaning: str
    measured: Measured = "step"
    lower_is_better: bool | None = None
    group: str = ""
    shown: bool = True

    @property
    def held_out(self) -> bool:
        """Whether the metric is measured on held-out data."""
        return self.measured not in ("step", "total")

    @property
    def key(self) -> str:
        """Key in metrics.jsonl."""
        return HELD_OUT_PREFIX + self.name if self.held_out else self.name

    @property
    def heading(self) -> str:
        """Title with its group, for places that show the metric by itself."""
        return f"{self.group}: {self.title}" if self.group else self.title
