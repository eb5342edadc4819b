"""Implementations take turns under a clock. Needs no jax."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

MOST_CALLS = 2000  # of one sample


class Refused(Exception):
    """An implementation cannot run a pass; one line that says why."""


class Contender(Protocol):
    """An implementation with its inputs."""

    name: str
    ours: bool  # the product's
    passes: Sequence[str]  # that it is meant for

    def pairs(self, step: str) -> int:
        """Visible (query, key) pairs of a pass."""

    def prepare(self, step: str, seconds: float) -> None:
        """Compiles and warms up a pass; its samples will take about so many seconds.

        Raises:
          Refused: this implementation or this machine cannot run it.
        """

    def sample(self, step: str) -> float:
        """Seconds of a call, averaged over those of one sample."""

    def output(self, step: str) -> np.ndarray:
        """Float32 result of forward or decode, [B, N·Q, heads, head_dim].

        Raises:
          Refused: it cannot run it, or has other inputs than the workload's.
        """


def enough_calls(took: float, seconds: float) -> int:
    """How many calls, of which one took `took`, fill so many seconds."""
    return int(min(max(1, seconds / max(took, 1e-9)), MOST_CALLS))


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def alternate(
    contenders: Sequence[Contender], step: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Samples every contender once a round, each round beginning with another one.

    Args:
      contenders: those not meant for this pass are left out; of those that refuse, it is said.
      step: the pass, one of `PASSES`.
      rounds: samples of each.
      seconds: of one sample, about.

    Returns:
      Of each contender name, pass and either `refused`, a line, or `pairs` and, round by round,
      `seconds`.
    """
    contenders = [each for each in contenders if step in each.passes]
    rows: list[dict[str, Any]] = [
        {"impl": each.name, "ours": each.ours, "pass": step} for each in contenders
    ]
    for each, row in zip(contenders, rows, strict=True):
        try:
            each.prepare(step, seconds)
        except Refused as why:
            row["refused"] = str(why)
    running = [i for i, row in enumerate(rows) if "refused" not in row]
    samples: dict[int, list[float]] = {i: [] for i in running}
    for number in range(rounds):
        for turn in range(len(running)):
            which = running[(number + turn) % len(running)]
            samples[which].append(contenders[which].sample(step))
    for i, found in samples.items():
        rows[i] |= {"pairs": contenders[i].pairs(step), "seconds": found}
    return rows
