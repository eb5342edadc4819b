"""Sample the times of several implementations in turn. Does not import jax."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

MAX_CALLS = 2000  # calls of one sample


class Refused(Exception):
    """An implementation cannot run a pass; the message is one line with the reason."""


class Contender(Protocol):
    """An implementation with its inputs."""

    name: str
    ours: bool  # whether it is an implementation of this project
    passes: Sequence[str]  # the passes that it supports

    def pairs(self, step: str) -> int:
        """Return the visible (query, key) pairs of a pass."""

    def prepare(self, step: str, seconds: float) -> None:
        """Compile and warm up a pass, whose samples will take about `seconds`.

        Raises:
          Refused: If this implementation or this machine cannot run it.
        """

    def sample(self, step: str) -> float:
        """Return the seconds of a call, averaged over one sample."""

    def output(self, step: str) -> np.ndarray:
        """Return the float32 output of forward or decode, [B, N·Q, heads, head_dim].

        Raises:
          Refused: If it cannot run the pass, or its inputs are not those of the workload.
        """


def enough_calls(call_seconds: float, seconds: float) -> int:
    """Return the number of calls of `call_seconds` each that fill `seconds`, 1 to MAX_CALLS."""
    return int(min(max(1, seconds / max(call_seconds, 1e-9)), MAX_CALLS))


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, truncated."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def alternate(
    contenders: Sequence[Contender], step: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Sample every contender once per round; each round starts with another contender.

    Args:
      contenders: those that do not support the pass are skipped.
      step: the pass, one of `PASSES`.
      rounds: samples of each contender.
      seconds: approximate duration of a sample.

    Returns:
      A row for each contender: its name, the pass, and either `refused`, the reason, or `pairs` and
      the `seconds` of each round.
    """
    contenders = [contender for contender in contenders if step in contender.passes]
    rows: list[dict[str, Any]] = [
        {"impl": contender.name, "ours": contender.ours, "pass": step} for contender in contenders
    ]
    for contender, row in zip(contenders, rows, strict=True):
        try:
            contender.prepare(step, seconds)
        except Refused as reason:
            row["refused"] = str(reason)
    running = [i for i, row in enumerate(rows) if "refused" not in row]
    samples: dict[int, list[float]] = {i: [] for i in running}
    for number in range(rounds):
        for turn in range(len(running)):
            which = running[(number + turn) % len(running)]
            samples[which].append(contenders[which].sample(step))
    for i, of_contender in samples.items():
        rows[i] |= {"pairs": contenders[i].pairs(step), "seconds": of_contender}
    return rows
