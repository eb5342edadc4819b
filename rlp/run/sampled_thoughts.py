"""The thoughts that `rlp.load(...).think` returns, shown as a table in notebooks and terminals."""

import dataclasses
import math
from collections.abc import Sequence
from typing import overload

from rlp.report.inline import Column, html_table, text_table


@dataclasses.dataclass(frozen=True)
class Thought:
    """A thought sampled after a prompt.

    Attributes:
      text: The text between the tags.
      tokens: The number of tokens, without the tags.
      closed: Whether the model closed the thought within the length limit.
      log_likelihood: Log-likelihood of the target after the thought, in nats; None without a
        target.
      gain: Increase of the target's log-likelihood over the prediction without a thought, in nats;
        None without a target.
    """

    text: str
    tokens: int
    closed: bool
    log_likelihood: float | None
    gain: float | None


class Thoughts(Sequence[Thought]):
    """A sequence of thoughts after one prompt, as returned by `Model.think`.

    Notebooks and terminals show it as a table.

    Attributes:
      prompt: The prompt.
      target: The target; "" if there is none.
      log_likelihood: Log-likelihood of the target without a thought, in nats; None without a
        target.
    """

    def __init__(
        self, prompt: str, target: str, thoughts: Sequence[Thought], log_likelihood: float | None
    ) -> None:
        """Create the sequence; see the attributes."""
        self.prompt, self.target, self.log_likelihood = prompt, target, log_likelihood
        self._thoughts = tuple(thoughts)

    @overload
    def __getitem__(self, index: int) -> Thought: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Thought]: ...
    def __getitem__(self, index: int | slice) -> Thought | Sequence[Thought]:
        return self._thoughts[index]

    def __len__(self) -> int:
        return len(self._thoughts)

    @property
    def gains(self) -> list[float]:
        """The information gain of each thought, in nats; [] without a target."""
        return [thought.gain for thought in self if thought.gain is not None]

    @property
    def mean_gain(self) -> float | None:
        """The mean of `gains`, in nats; None without a target."""
        return math.fsum(self.gains) / len(self) if self.gains else None

    def __repr__(self) -> str:
        return f"{text_table(self._columns())}\n{self._summary()}"

    def _repr_html_(self) -> str:
        return html_table(self._columns(), self._summary())

    def _columns(self) -> list[Column]:
        columns = [
            Column("tokens", [str(thought.tokens) for thought in self]),
            Column(
                "closed",
                ["yes" if thought.closed else "no" for thought in self],
                meaning="by the model, within the length limit",
            ),
            Column("thought", [thought.text for thought in self], text=True),
        ]
        if self.log_likelihood is None:
            return columns
        scored = [(t.gain or 0.0, t.log_likelihood or 0.0) for t in self]
        meaning = "log-likelihood of the target after the thought, in nats"
        return [
            Column("gain", [f"{gain:+.3f}" for gain, _ in scored], meaning="in nats"),
            Column("log p", [f"{after:.3f}" for _, after in scored], meaning=meaning),
            *columns,
        ]

    def _summary(self) -> str:
        if self.log_likelihood is None:
            return f"{len(self)} thoughts after {self.prompt!r}"
        return (
            f"{self.target!r} after {self.prompt!r}: log p without a thought "
            f"{self.log_likelihood:.3f} nats, mean gain {self.mean_gain:+.3f}"
        )
