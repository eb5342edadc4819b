"""The settings of the method that the stages of a step read."""

import dataclasses

import jax
import jax.numpy as jnp

from configs.default import MethodFields
from rlp.objectives.options import Options
from rlp.objectives.registry import find


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLPSettings(MethodFields):
    """The fields of the method (`configs/default.py`), and the values that a run resolves."""

    objective: str  # a name in `rlp.objectives.registry`, or "<module>:<name>"
    prompt: tuple[int, ...]  # P token ids of the thinking prompt, without BOS
    bos: int  # number of BOS tokens at the start of a row, before prompt and text
    options: Options = Options()  # of the objective
    # (steps taken, maximum number of actions from then on), from step 0 on; () for L at all steps
    thought_length_schedule: tuple[tuple[int, int], ...] = ()

    @property
    def band(self) -> tuple[float, float]:
        """Lowest and highest no-think loss of a target, for positions="band", nats per token."""
        return self.band_low, self.band_high

    @property
    def updates(self) -> int:
        """Optimizer updates per step: one per minibatch and pass over the rollout."""
        return self.updates_per_rollout * self.minibatches

    @property
    def first_predicted(self) -> int:
        """Trunk position of the first predicted token of the text, after BOS and prompt."""
        return len(self.prompt) + max(self.bos, 1)

    def thought_limit(self, step: jax.Array | int) -> jax.Array | int:
        """Return the maximum number of actions of a thought, at most L, after `step` steps.

        It is a number on the device, so that shapes and programs are those of L at all steps.
        """
        if not self.thought_length_schedule:
            return self.thought_length
        starts, limits = jnp.asarray(self.thought_length_schedule, jnp.int32).T
        return limits[jnp.searchsorted(starts, step, side="right") - 1]

    @property
    def learns_target(self) -> bool:
        """Whether the loss includes the likelihood of the text after a thought."""
        return self.target_weight > 0 or find(self.objective).target_weights is not None

    @property
    def keeps_reference(self) -> bool:
        """Whether the state contains pi_ref, for the KL term; a frozen phi serves as one, too."""
        return self.kl_weight > 0 and self.baseline != "frozen"


def copies_kept(settings: RLPSettings | None) -> tuple[bool, bool]:
    """Return whether the state contains a baseline phi, and whether it contains a reference.

    Args:
      settings: of the sampling of a training step; None for next-token training.
    """
    if settings is None:
        return False, False
    return settings.baseline != "none", settings.keeps_reference
