"""Surrogate losses: what is minimised at the actions of thoughts, given their advantages.

A surrogate is a function of `Actions` and the settings of the method. It returns the loss of every
action [B, N, L], or of every thought [B, N, 1], and figures of its own by name. The engine adds up
the losses, each with the weight of its action (of all actions of its thought) in the mean that
`rlp.length_normalization` asks for, and averages the figures over the actions.
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
    """What a surrogate loss may look at, of the N thoughts of B documents.

    Log-probabilities are in nats, at the sampling temperature. Where `live` is False, arrays hold
    anything finite, and the loss counts nothing.
    """

    logprobs: jax.Array  # [B, N, L], of every action under theta; carries the gradient
    behaviour: jax.Array  # [B, N, L], of the same when they were sampled
    advantages: jax.Array  # [B, N, 1], or [B, N, L] where they differ between a thought's actions
    live: jax.Array  # [B, N, L] bool: sampled, and of a thought that counts
    readings: Mapping[str, Any] = flax.struct.field(default_factory=dict)  # those that are declared
    options: Options = flax.struct.field(pytree_node=False, default=Options())
    objective: str = flax.struct.field(pytree_node=False, default="")

    def __getattr__(self, name: str) -> Any:
        return reading(self, "actions", name)


CLIPPED = "clip_fraction"  # a figure of every run's metrics, which a surrogate may return
Surrogate = Callable[[Actions, MethodFields], tuple[jax.Array, dict[str, jax.Array]]]


def clipped(actions: Actions, settings: MethodFields) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped surrogate (RLP, eq. 5), with one ratio for each action or, as `rlp.ratio` says,
    for each thought (GSPO); see `equations.clipped_surrogate`."""
    loss, stopped = equations.clipped_surrogate(
        actions.logprobs,
        actions.behaviour,
        actions.advantages,
        actions.live,
        settings.clip_low,
        settings.clip_high,
        settings.clip_dual,
        settings.ratio,
    )
    return loss, {CLIPPED: stopped}
