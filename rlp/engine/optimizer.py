"""AdamW from optax, with warm-up, learning-rate schedule and global-norm clipping."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

# FLOPs of an update per parameter; a square root or a select counts as one.
_ADAM = 2 + 3 + 4 + 2 + 3 + 2  # norm, both moments, their corrections, the quotient, rate and sum
_CLIP = 3  # division by the norm, multiplication by the limit, select
_DECAY = 2


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax transformation and its learning rate.

    Attributes:
      transformation: from gradients to updates.
      learning_rate: from the number of past updates to the learning rate of the next one.
      clips, decays: whether it clips gradients, and whether it decays matrices.
    """

    transformation: optax.GradientTransformation
    learning_rate: Callable[[int], Any]
    clips: bool
    decays: bool

    def init(self, params: Any) -> Any:
        """Return the optimizer state before the first update."""
        return self.transformation.init(params)

    def apply(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any, jax.Array]:
        """Return new parameters, new state, and the gradients' global norm before clipping."""
        updates, state = self.transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, optax.tree.norm(gradients)

    def flops(self, params: Any) -> int:
        """Return the FLOPs of `apply` on parameters of these shapes, all of them elementwise."""
        common = _ADAM + _CLIP * self.clips
        cost = lambda leaf, matrix: leaf.size * (common + _DECAY * (matrix and self.decays))
        return sum(jax.tree.leaves(jax.tree.map(cost, params, _is_matrix(params))))

    def shardings(self, params: Any, placed: Any, others: Any) -> Any:
        """Return shardings of the state: moments are sharded like their parameters.

        Args:
          params: shapes of the parameters.
          placed: shardings of the parameters.
          others: sharding of all leaves that belong to no parameter.
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
    """Return the optimizer of a run.

    Args:
      learning_rate: peak learning rate.
      schedule: "constant" or "cosine", after a linear warm-up from 0.
      warmup_steps: updates of the warm-up; the first one has learning_rate / warmup_steps.
      final_share: final learning rate of the cosine, at `total_steps`, as a share of the peak.
      total_steps: optimizer updates of the run.
      beta1, beta2, epsilon, weight_decay: of AdamW; only matrices decay.
      clip_norm: largest global gradient norm; 0 for no clipping.

    Raises:
      ValueError: If the schedule is unknown.
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
    """Return which parameters decay: kernels and the embedding, but not norm scales and biases."""
    return {
        name: _is_matrix(child) if isinstance(child, dict) else name not in ("scale", "bias")
        for name, child in params.items()
    }
