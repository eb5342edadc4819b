"""What is said of one metric, once, for the run, the report, the checks and the documentation."""

import dataclasses
from typing import Literal

HELD_OUT_PREFIX = "evaluation/"  # of held-out metrics in metrics.jsonl

# A step of training, or what the run has used up to it; held-out documents, responses of pairs, or
# problems.
Measured = Literal["step", "total", "documents", "responses", "problems"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a run measures.

    Attributes:
      name: its key in metrics.jsonl; that of a held-out metric in evaluation.json, which
        metrics.jsonl has as evaluation/<name>. A part in angle brackets stands for any text, as in
        "seconds_<stage>".
      title: of its plot, and of its column in tables of results.
      unit: "nats", "nats/token", "tokens", "share" (from 0 to 1), "s", …; "" for a plain number.
      meaning: one phrase.
      measured: on what.
      lower_is_better: None where neither is better in itself.
      group: heads the columns of several metrics in tables.
      shown: whether reports plot it and have a column for it; the files always have it.
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
        """Whether it is measured on held-out data."""
        return self.measured in ("documents", "responses", "problems")

    @property
    def key(self) -> str:
        """Its name in metrics.jsonl."""
        return HELD_OUT_PREFIX + self.name if self.held_out else self.name

    @property
    def heading(self) -> str:
        """Its title where it stands alone."""
        return f"{self.group}: {self.title}" if self.group else self.title
