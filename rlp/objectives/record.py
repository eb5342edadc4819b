"""The definition of an objective over thoughts: a record of pure functions.

The engine chooses forks, samples thoughts, scores the text after them and computes gradients in the
same way for all objectives. An objective defines the reward of a thought (`reward`), the advantages
within a group (`advantages`), the loss of its actions (`surrogate`), and how much of the likelihood
of the text after a thought is in the loss (`target_weights`).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax

from rlp.metrics.metric import Metric
from rlp.metrics.watch import Rule
from rlp.objectives import equations, surrogates
from rlp.objectives.options import Value
from rlp.objectives.outcome import Outcome
from rlp.objectives.surrogates import Surrogate

Reward = Callable[[Outcome], jax.Array]  # [B, K, G]
Advantages = Callable[[jax.Array, jax.Array], jax.Array]  # (rewards, counted); all [B, K, G]
TargetWeights = Callable[[Outcome, jax.Array], jax.Array]  # (outcome, counted) to [B, K, G]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """An objective over thoughts.

    Attributes:
      formula: of its reward, and of other parts that distinguish it; for tables.
      source: paper or purpose; for tables.
      reward: function of `Outcome` to the reward of every thought, [B, K, G].
      advantages: function of rewards and counted thoughts to advantages; 0 for a thought that is
        not counted.
      target_weights: function to the weights of log p(y|c), which the objective maximizes together
        with A log pi(c); 0 for a thought that is not counted. Like rewards, they are constants of
        the update. None if the loss does not include the target.
      reads: names of the readings (`rlp.engine.readings.READINGS`) that its functions read besides
        the fields of `Outcome`.
      surrogate: function of `Actions` and settings to the loss of every action or thought.
      options: from name to default, for the options that a config can set. Its functions read them
        from `Outcome.options` and `Actions.options`.
      metrics: its additional metrics, each with a function of `Outcome` whose mean over thoughts is
        logged, or None if the surrogate returns the metric.
      warnings: its additional warning rules, besides `rlp.metrics.warning_rules`; they may read its
        metrics.
      weighs_planning: whether planning actions have the advantage A + alpha |A|, with alpha from
        `rlp.planning_weight` (HICRA).
    """

    formula: str
    source: str
    reward: Reward
    advantages: Advantages = equations.group_advantages
    target_weights: TargetWeights | None = None
    reads: tuple[str, ...] = ()
    weighs_planning: bool = False
    surrogate: Surrogate = surrogates.clipped
    options: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    metrics: Mapping[Metric, Reward | None] = dataclasses.field(default_factory=dict)
    warnings: tuple[Rule, ...] = ()
