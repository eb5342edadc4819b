"""What tells one objective over thoughts from another: a small record of pure functions.

The engine chooses forks, samples thoughts, scores what follows and takes the gradient, the same for
all. An objective says what a thought is worth (`reward`), how the thoughts of a group are compared
(`advantages`), and whether the text after a thought is learnt, too (`target_weights`).
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax

from rlp.objectives import equations


@flax.struct.dataclass
class Answers:
    """What responses to problems answer, [B, 1, G] each: a document is a prompt, its fork the end.

    A response that gives no answer that can be read is neither correct nor agrees.
    """

    correct: jax.Array  # bool: it is the right answer
    reward: jax.Array  # 1 where correct, else 0; or the number that the verifier returns
    agrees: jax.Array  # bool: it is the answer that most responses of its group give
    confidence: jax.Array  # in [0, 1], stated by the response; nan where it states none
    given: jax.Array  # bool: it gives an answer that can be read
    failed: jax.Array  # bool: its check took too long, or broke down


@flax.struct.dataclass
class Outcome:
    """What a reward may look at, of G thoughts at each of K forks of B documents.

    Log-probabilities and evidence are in nats, at temperature 1, over tokens that text can hold.
    Where responses answer problems, they are what is called thoughts here, no text follows them,
    and evidence is 0.
    """

    reasoned: jax.Array  # [B, K, G], S_pred: evidence of the target after the thought
    baseline: jax.Array  # [B, K], S_ema: evidence without a thought; 0 without a baseline
    logprobs: jax.Array  # [B, K, G, H], of every target token after the thought
    baseline_logprobs: jax.Array  # [B, K, H], without a thought; 0 without a baseline
    matches: jax.Array | None  # [B, K, G] bool: what is predicted after the thought is what follows
    elsewhere: jax.Array | None  # [B, K, G], evidence of the text at another place of the document
    in_another: jax.Array | None  # [B, K, G], evidence of the thought in another document
    closed: jax.Array  # [B, K, G] bool: the thought closed by itself
    length: jax.Array  # [B, K, G] int32, |c|: actions of the thought
    uniform: jax.Array  # [B, K, G], numbers in [0, 1) that nothing else depends on
    limit: int = flax.struct.field(pytree_node=False)  # L: most actions
    answers: Answers | None = None


Reward = Callable[[Outcome], jax.Array]  # [B, K, G]
Advantages = Callable[[jax.Array, jax.Array], jax.Array]  # of rewards and counted; all [B, K, G]
TargetWeights = Callable[[Outcome, jax.Array], jax.Array]  # of outcome and counted; [B, K, G]


@dataclasses.dataclass(frozen=True)
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
      reads_baseline: the reward means nothing without `baseline`.
      reads_matches: the reward reads `matches`.
      reads_elsewhere: the reward reads `elsewhere`.
      reads_in_another: the reward reads `in_another`.
      reads_answers: the reward reads `answers`, so its data is problems.
      weighs_planning: actions that are planning have an advantage of A + alpha |A|, alpha being
        `rlp.planning_weight` (HICRA).
    """

    formula: str
    source: str
    reward: Reward
    advantages: Advantages = equations.group_advantages
    target_weights: TargetWeights | None = None
    reads_baseline: bool = False
    reads_matches: bool = False
    reads_elsewhere: bool = False
    reads_in_another: bool = False
    reads_answers: bool = False
    weighs_planning: bool = False
