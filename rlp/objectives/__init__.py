"""What is optimised: equations on arrays, and the objectives that are made of them."""

from rlp.metrics.metric import Metric
from rlp.objectives.outcome import Outcome
from rlp.objectives.record import Objective
from rlp.objectives.surrogates import Actions

__all__ = ["Actions", "Metric", "Objective", "Outcome"]
