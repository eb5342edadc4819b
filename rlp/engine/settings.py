"""The settings of the method, as its stages read them."""

import dataclasses

from configs.default import MethodFields
from rlp.objectives.options import Options
from rlp.objectives.registry import find


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLPSettings(MethodFields):
    """The fields of the method (`configs/default.py`), and what a run resolves for it."""

    objective: str  # `objective` itself: a name of `rlp.objectives.registry`
    prompt: tuple[int, ...]  # token ids, without a bos
    bos: int  # tokens at the beginning of a row, before the prompt and the text
    options: Options = Options()  # of the objective

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


def copies_kept(settings: RLPSettings | None) -> tuple[bool, bool]:
    """Whether a state holds a baseline φ, and a reference for the KL term.

    Args:
      settings: with which a training step samples; None where it samples nothing.
    """
    if settings is None:
        return False, False
    return settings.baseline != "none", settings.keeps_reference
