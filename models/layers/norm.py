"""RMSNorm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

if TYPE_CHECKING:
    from models.config import ModelConfig


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis, in float32; the factor is 1 + scale if the norm is
    zero-centered (`model.zero_centered_norm`)."""

    def __init__(self, size: int, config: ModelConfig):
        start = jnp.zeros if config.zero_centered_norm else jnp.ones
        self.scale = nnx.Param(start((size,), jnp.float32))
        self.epsilon = config.norm_epsilon
        self.zero_centered = config.zero_centered_norm

    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.scale[...]
        return rms_norm(x, 1 + scale if self.zero_centered else scale, self.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """Compute x / rms(x) * scale over the last axis; the gradient needs x and scale alone."""
    return (_normalize(x, epsilon)[0] * _align(scale, x)).astype(x.dtype)


def _align(scale: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape scale [D] for products with x [..., D]."""
    return scale.reshape((1,) * (x.ndim - 1) + (-1,))


def _normalize(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Return x / rms(x) and 1 / rms(x), float32."""
    y = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    return y * inverse, inverse


def _rms_norm_backward(
    epsilon: float, residuals: tuple, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, scale = residuals
    y, inverse = _normalize(x, epsilon)
    cotangent = cotangent.astype(jnp.float32)
    dy = cotangent * _align(scale, x)
    dx = inverse * (dy - y * jnp.mean(y * dy, axis=-1, keepdims=True))
    return dx.astype(x.dtype), (cotangent * y).sum(axis=tuple(range(x.ndim - 1)))


rms_norm.defvjp(
    lambda x, scale, epsilon: (rms_norm(x, scale, epsilon), (x, scale)), _rms_norm_backward
)


def normed(norm: RMSNorm | None, x: jax.Array) -> jax.Array:
    """Return norm(x), or x if there is no norm."""
    return x if norm is None else norm(x)
