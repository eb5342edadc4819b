"""What is optimised: equations on arrays, and the objectives that are made of them."""

from rlp.objectives.record import Objective, Outcome

__all__ = ["Objective", "Outcome"]
