"""What thoughts are worth: from how a network predicts targets to rewards, advantages and weights.

    outcome     what an objective may look at, in groups     Outcome
    assign_credit   rewards, which thoughts count, advantages    the objective, and `rlp.unclosed`

Training and the reports of held-out thoughts both come here.
"""

import flax.struct
import jax

from rlp.engine.branches import Thoughts
from rlp.engine.scoring import Scores
from rlp.engine.token_bytes import TokenBytes, matches
from rlp.objectives import equations
from rlp.objectives.record import Objective, Outcome


def outcome(
    scores: Scores,
    without: jax.Array,
    thoughts: Thoughts,
    uniform: jax.Array,
    weights: jax.Array,
    *,
    target: jax.Array,
    table: TokenBytes | None = None,
    elsewhere: jax.Array | None = None,
    in_another: jax.Array | None = None,
) -> Outcome:
    """What an objective may look at.

    Args:
      scores: of the target after the thoughts, [B, K, G, H] each.
      without: log-probability of the target without a thought, [B, K, H] nats.
      thoughts: of all branches, [B, N, …].
      uniform: [B, K, G] from `noise`.
      weights: of the horizon, [H].
      target: [B, K, H] ids.
      table: for `Outcome.matches`.
      elsewhere: log-probability of a target of another place, [B, K, G, H] nats.
      in_another: log-probability of the target of another document there, [B, K, G, H] nats.
    """
    grouped = lambda x: x.reshape(uniform.shape)
    return Outcome(
        reasoned=equations.evidence(scores.logprob, weights),
        baseline=equations.evidence(without, weights),
        logprobs=scores.logprob,
        baseline_logprobs=without,
        matches=None
        if table is None
        else matches(scores.likeliest[..., 0], target[:, :, None, :], table),
        elsewhere=None if elsewhere is None else equations.evidence(elsewhere, weights),
        in_another=None if in_another is None else equations.evidence(in_another, weights),
        closed=grouped(thoughts.closed),
        length=grouped(thoughts.length),
        uniform=uniform,
        limit=thoughts.actions.shape[-1],
    )


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
