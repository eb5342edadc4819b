"""What tells one objective over thoughts from another: a small record of pure functions.

The engine chooses forks, samples thoughts, scores what follows and takes the gradient, the same for
all. An objective says what a thought is worth (`reward`), how the thoughts of a group are compared
(`advantages`), what is minimised at their actions (`surrogate`), and whether the text after a
thought is learnt, too (`target_weights`).
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
Advantages = Callable[[jax.Array, jax.Array], jax.Array]  # of rewards and counted; all [B, K, G]
TargetWeights = Callable[[Outcome, jax.Array], jax.Array]  # of outcome and counted; [B, K, G]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """An objective over thoughts.

    Attributes:
      formula: of its reward, and of what else is its own.
      source: where it comes from.
      reward: of every thought.
      advantages: of every thought, from the rewards of its group and which of them count; 0 for one
        that does not.
      target_weights: of the target's log-likelihood after every thought, as a part of what is
        maximised, beside A log pi(c); 0 for a thought that does not count. They are constants of
        the update, as rewards are. None where the target is not learnt.
      reads: what its functions read besides the fields of `Outcome`: names of
        `rlp.engine.readings.READINGS`, which says what each costs and needs.
      surrogate: the loss of actions, given their advantages.
      options: name to default of the options that a config can set, which its functions find in
        `Outcome.options` and `Actions.options`.
      metrics: metrics of its own, and of each a function to its value for every thought, whose mean
        is logged; None for a figure that the surrogate returns under the metric's name.
      warnings: rules that a run of it asks besides those of `rlp.metrics.warning_rules`; they may
        read its own metrics.
      weighs_planning: actions that are planning have an advantage of A + alpha |A|, alpha being
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
