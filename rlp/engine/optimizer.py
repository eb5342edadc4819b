"""AdamW with warm-up, schedule and global-norm clipping, from optax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

# FLOPs of an update for one parameter; a square root and a choice count as one.
_ADAM = 2 + 3 + 4 + 2 + 3 + 2  # norm, both moments, their corrections, the quotient, rate and sum
_CLIP = 3  # by the norm, times the limit, or as it was
_DECAY = 2


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax transformation and its learning rate.

    Attributes:
      transformation: gradients to updates.
      learning_rate: number of updates done -> learning rate of the next one.
      clips, decays: whether it clips gradients and decays matrices.
    """

    transformation: optax.GradientTransformation
    learning_rate: Callable[[int], Any]
    clips: bool
    decays: bool

    def init(self, params: Any) -> Any:
        """The state before the first update."""
        return self.transformation.init(params)

    def apply(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any, jax.Array]:
        """New parameters, new state and the global norm of the gradients before clipping."""
        updates, state = self.transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, optax.tree.norm(gradients)

    def flops(self, params: Any) -> int:
        """FLOPs of `apply` on parameters of these shapes, all of them elementwise."""
        each = _ADAM + _CLIP * self.clips
        cost = lambda leaf, matrix: leaf.size * (each + _DECAY * (matrix and self.decays))
        return sum(jax.tree.leaves(jax.tree.map(cost, params, _is_matrix(params))))

    def shardings(self, params: Any, placed: Any, others: Any) -> Any:
        """Shardings of the state: moments live where their parameter lives.

        Args:
          params: shapes of the parameters.
          placed: their shardings.
          others: sharding of what belongs to no parameter.
        """
        return optax.tree_utils.tree_map_params(
            self.transformation,
            lambda _, sharding: sharding,
            jax.eval_shape(self.init, params),
            placed,
            transform_non_params=lambda _: others,
        )


def make_optimizer(
    *,
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    final_share: float,
    total_steps: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    clip_norm: float,
) -> Optimizer:
    """The optimizer of a run.

    Args:
      learning_rate: peak.
      schedule: "constant" or "cosine", after a linear warm-up from 0.
      warmup_steps: steps; the first step has learning_rate / warmup_steps.
      final_share: of the peak, reached at `total_steps` by the cosine.
      total_steps: optimizer updates of the run.
      beta1, beta2, epsilon, weight_decay: of AdamW; decay touches matrices only.
      clip_norm: global gradient norm, 0 for none.

    Raises:
      ValueError: for an unknown schedule.
    """
    if schedule == "constant":
        after = optax.constant_schedule(learning_rate)
    elif schedule == "cosine":
        decay_steps = max(total_steps - warmup_steps, 1)
        after = optax.cosine_decay_schedule(learning_rate, decay_steps, final_share)
    else:
        raise ValueError(f"optimizer.schedule={schedule!r}; use one of ['constant', 'cosine']")
    rate = after
    if warmup_steps:
        first = learning_rate / warmup_steps
        warmup = optax.linear_schedule(first, learning_rate, max(warmup_steps - 1, 1))
        rate = optax.join_schedules([warmup, after], [warmup_steps])
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    adam = optax.adamw(rate, beta1, beta2, epsilon, weight_decay=weight_decay, mask=_is_matrix)
    return Optimizer(optax.chain(clip, adam), rate, clips=clip_norm > 0, decays=weight_decay > 0)


def _is_matrix(params):
    """Kernels and the embedding decay; norm scales and biases do not."""
    return {
        name: _is_matrix(child) if isinstance(child, dict) else name not in ("scale", "bias")
        for name, child in params.items()
    }
