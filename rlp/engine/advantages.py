"""Credit assignment: rewards, advantages and loss weights of thoughts.

Training and the evaluation of held-out thoughts share this code.
"""

import flax.struct
import jax

from rlp.objectives import equations
from rlp.objectives.outcome import Outcome
from rlp.objectives.record import Objective


@flax.struct.dataclass
class Credit:
    """Rewards, advantages and loss weights of thoughts, [B, K, G] each."""

    rewards: jax.Array  # nats for `rlp`; else in the unit of the objective
    counted: jax.Array  # bool: in the mean of the group and in the loss
    advantages: jax.Array
    target_weights: jax.Array | None  # of the target's log-likelihood; None if it is not trained on
    narrow: jax.Array | None  # [B, K] bool: groups excluded by `rlp.min_reward_std`; None without


def assign_credit(
    objective: Objective,
    outcome: Outcome,
    *,
    unclosed: str,
    unclosed_penalty: float,
    reward_floor: float = 0.0,
    min_reward_std: float = 0.0,
    advantages: str = "",
    in_band: jax.Array | None = None,
) -> Credit:
    """Compute rewards (eq. 3), advantages (eq. 4) and target weights of an outcome.

    Advantages and weights carry no gradient.

    Args:
      objective: whose reward, advantages and target weights are used.
      outcome: of G thoughts at each of K forks of B documents.
      unclosed, unclosed_penalty, reward_floor, min_reward_std: fields of `rlp`; all numbers are in
        the unit of the reward.
      advantages: a name of `equations.ADVANTAGES` that overrides the objective's; "" for none.
      in_band: [B, K] bool, forks whose thoughts count; None for all.
    """
    compare = equations.ADVANTAGES[advantages] if advantages else objective.advantages
    raw, closed = objective.reward(outcome), outcome.closed
    rewards = equations.rewards(raw, closed, unclosed, unclosed_penalty, reward_floor)
    counted, narrow = equations.counted_thoughts(closed, unclosed), None
    if min_reward_std:
        narrow = equations.narrow_groups(rewards, counted, min_reward_std)
        counted &= ~narrow[..., None]
    if in_band is not None:
        counted &= in_band[..., None]
    weights = objective.target_weights
    constant = jax.lax.stop_gradient
    return Credit(
        rewards=rewards,
        counted=counted,
        advantages=constant(compare(rewards, counted)),
        target_weights=None if weights is None else constant(weights(outcome, counted)),
        narrow=narrow,
    )
