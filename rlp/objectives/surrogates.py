"""Surrogate losses: the loss of the actions of thoughts, given their advantages.

A surrogate is a function of `Actions` and the settings of the method. It returns the loss of every
action [B, N, L], or of every thought [B, N, 1], and a dict of metrics of these shapes. The engine
sums the losses with the weights of `rlp.length_normalization` (a thought has the weight of all its
actions), and averages the metrics over the actions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax

from configs.default import MethodFields
from rlp.objectives import equations
from rlp.objectives.options import Options
from rlp.objectives.outcome import reading


@flax.struct.dataclass
class Actions:
    """The inputs of a surrogate loss, for N thoughts of each of B documents.

    Log-probabilities are in nats, at the sampling temperature. If `live` is False, the other arrays
    have arbitrary finite values, and the loss is ignored.
    """

    logprobs: jax.Array  # [B, N, L], log pi_theta of every action; carries the gradient
    behavior: jax.Array  # [B, N, L], log pi_theta_old of every action, from the sampler
    advantages: jax.Array  # [B, N, 1], or [B, N, L] if they differ between a thought's actions
    live: jax.Array  # [B, N, L] bool: sampled actions of counted thoughts
    readings: Mapping[str, Any] = flax.struct.field(default_factory=dict)  # declared ones, by name
    options: Options = flax.struct.field(pytree_node=False, default=Options())
    objective: str = flax.struct.field(pytree_node=False, default="")

    def __getattr__(self, name: str) -> Any:
        return reading(self, "actions", name)


CLIPPED = "clip_fraction"  # a metric of every run, which any surrogate may return
Surrogate = Callable[[Actions, MethodFields], tuple[jax.Array, dict[str, jax.Array]]]


def clipped(actions: Actions, settings: MethodFields) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the clipped surrogate (arXiv 2510.01265, eq. 5) and the metric `CLIPPED`.

    `rlp.ratio` selects one ratio per action or, as in GSPO, per thought; see
    `equations.clipped_surrogate`.
    """
    loss, stopped = equations.clipped_surrogate(
        actions.logprobs,
        actions.behavior,
        actions.advantages,
        actions.live,
        settings.clip_low,
        settings.clip_high,
        settings.clip_dual,
        settings.ratio,
    )
    return loss, {CLIPPED: stopped}
