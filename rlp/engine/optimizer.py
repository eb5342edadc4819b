"""AdamW from optax, with warm-up, learning-rate schedule and global-norm clipping."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

_LARGEST = float(jnp.finfo(jnp.float32).max)
# FLOPs of an update per parameter; a square root counts as one.
_ADAM = 2 + 3 + 4 + 2 + 3 + 2  # norm, both moments, their corrections, the quotient, rate and sum
_CLIP = 2  # the scaling, where each moment reads the gradient
_DECAY = 2


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax transformation and its learning rate.

    Attributes:
      transformation: from gradients, and their global `norm`, to updates.
      learning_rate: from the number of past updates to the learning rate of the next one.
      clips, decays: whether it clips gradients, and whether it decays matrices.
      can_overflow: whether finite gradients can take a finite parameter out of float32's range.
    """

    transformation: optax.GradientTransformationExtraArgs
    learning_rate: Callable[[int], Any]
    clips: bool
    decays: bool
    can_overflow: bool

    def init(self, params: Any) -> Any:
        """Return the optimizer state before the first update."""
        return self.transformation.init(params)

    def apply(self, gradients: Any, state: Any, params: Any, *, norm: jax.Array) -> tuple[Any, Any]:
        """Return new parameters and new state, given the gradients and their global norm."""
        updates, state = self.transformation.update(gradients, state, params, norm=norm)
        return optax.apply_updates(params, updates), state

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
    clip = _clip(clip_norm) if clip_norm else optax.identity()
    adam = optax.adamw(rate, beta1, beta2, epsilon, weight_decay=weight_decay, mask=_is_matrix)
    return Optimizer(
        optax.chain(clip, adam),
        rate,
        clips=clip_norm > 0,
        decays=weight_decay > 0,
        can_overflow=_can_overflow(learning_rate, epsilon, weight_decay),
    )


def _can_overflow(learning_rate: float, epsilon: float, weight_decay: float) -> bool:
    """Return whether AdamW can take a finite parameter out of float32's range.

    All gradients have a finite norm, so no value of theirs exceeds the root of the largest number,
    nor does their mean, which the step divides by at least epsilon. A step of less than half a unit
    in the last place of the largest number cannot overflow, and decay by at most the parameter
    itself does not either.
    """
    step = learning_rate * _LARGEST**0.5 / epsilon if epsilon else math.inf
    return not (step < _LARGEST * 2**-26 and learning_rate * weight_decay <= 1)


def _clip(limit: float) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that scales gradients of a larger global norm down to `limit`.

    optax.clip_by_global_norm computes the norm again, and divides every gradient in a pass of its
    own; multiplication by a scalar is part of the pass that reads the gradients anyway.
    """

    def update(gradients: Any, state: Any, params: Any = None, *, norm: jax.Array, **_: Any) -> Any:
        scale = limit / jnp.maximum(norm, limit)
        return jax.tree.map(lambda x: scale * x, gradients), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _is_matrix(params):
    """Return which parameters decay: kernels and the embedding, but not scales, offsets, biases."""
    return {
        name: _is_matrix(child)
        if isinstance(child, dict)
        else name not in ("scale", "offset", "bias")
        for name, child in params.items()
    }
