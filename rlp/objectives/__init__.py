"""Objectives over thoughts: equations on arrays, rewards, surrogate losses, and a registry."""

from rlp.metrics.metric import Metric
from rlp.objectives.outcome import Outcome
from rlp.objectives.record import Objective
from rlp.objectives.surrogates import Actions

__all__ = ["Actions", "Metric", "Objective", "Outcome"]
