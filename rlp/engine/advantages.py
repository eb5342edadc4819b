"""What thoughts are worth: from their outcome to rewards, advantages and weights.

Training and the reports of held-out thoughts both come here.
"""

import flax.struct
import jax

from rlp.objectives import equations
from rlp.objectives.outcome import Outcome
from rlp.objectives.record import Objective


@flax.struct.dataclass
class Credit:
    """What the thoughts of groups are worth, [B, K, G] each."""

    rewards: jax.Array
    counted: jax.Array  # bool: in the group's mean and in the loss
    advantages: jax.Array
    target_weights: jax.Array | None  # of the target's log-likelihood; None where it is not learnt


def assign_credit(
    objective: Objective,
    found: Outcome,
    *,
    unclosed: str,
    unclosed_penalty: float,
    advantages: str = "",
) -> Credit:
    """Rewards, advantages and weights of an outcome.

    Args:
      objective: whose reward it is.
      found: the outcome.
      unclosed, unclosed_penalty: `rlp.unclosed` and `rlp.unclosed_penalty`.
      advantages: a name of `equations.ADVANTAGES` in place of the objective's own; "" is its own.
    """
    compare = equations.ADVANTAGES[advantages] if advantages else objective.advantages
    rewards = equations.rewards(objective.reward(found), found.closed, unclosed, unclosed_penalty)
    counted = equations.counted_thoughts(found.closed, unclosed)
    weights = objective.target_weights
    constant = jax.lax.stop_gradient
    return Credit(
        rewards=rewards,
        counted=counted,
        advantages=constant(compare(rewards, counted)),
        target_weights=None if weights is None else constant(weights(found, counted)),
    )
