"""The settings of the method, as its stages read them."""

import dataclasses

from rlp.objectives.registry import find


@dataclasses.dataclass(frozen=True)
class RLPSettings:
    """The settings of the method; `configs/default.py` explains each, under `rlp`."""

    objective: str  # `objective` itself: a name of `rlp.objectives.registry`
    group_size: int
    forks_per_document: int
    thought_length: int
    horizon: int
    horizon_weighting: str
    discount: float
    temperature: float
    positions: str
    hardest_at: int
    min_prefix: int
    prompt: tuple[int, ...]  # token ids, without a bos
    bos: int  # tokens at the beginning of a row, before the prompt and the text
    baseline: str
    ema_decay: float
    clip_low: float
    clip_high: float
    clip_dual: float
    ratio: str
    updates_per_rollout: int
    minibatches: int
    unclosed: str
    unclosed_penalty: float
    length_normalization: str
    advantages: str
    kl_weight: float
    target_weight: float
    next_token_weight: float
    max_branches_in_flight: int
    update_micro_batch: int
    rollout_layout: str
    baseline_memory: str
    planning_weight: float

    @property
    def updates(self) -> int:
        """Optimizer updates of a step: every pass over its rollout takes one a minibatch."""
        return self.updates_per_rollout * self.minibatches

    @property
    def first_predicted(self) -> int:
        """Position in a trunk of the text's first token that is predicted, after bos and prompt."""
        return len(self.prompt) + max(self.bos, 1)

    @property
    def learns_target(self) -> bool:
        """Whether the text after a thought is learnt, too."""
        return self.target_weight > 0 or find(self.objective).target_weights is not None

    @property
    def keeps_reference(self) -> bool:
        """Whether a state holds a reference: for a KL term, unless a phi that never moves is it."""
        return self.kl_weight > 0 and self.baseline != "frozen"
