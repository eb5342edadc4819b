"""The parameters of a Mamba-2 layer, and the maps around its recurrence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.linear import Linear
from models.layers.norm import rms_norm

if TYPE_CHECKING:
    from models.config import ModelConfig

FIRST_STEPS = (1e-3, 1e-1)  # range of the steps of a new network whose inputs are 0
FIRST_RATES = (1.0, 16.0)  # range of its rates of decay


@flax.struct.dataclass
class Inputs:
    """The inputs x, b and c of the recurrence, or something else that each of them has."""

    x: Any
    b: Any
    c: Any


def each(run: Callable, *inputs: Inputs) -> Inputs:
    """Return the results of a function of the x, the b and the c of `inputs`."""
    return Inputs(*(run(*(getattr(y, name) for y in inputs)) for name in ("x", "b", "c")))


class Taps(nnx.Module):
    """The taps of a convolution for each channel, [taps, channels], and its bias."""

    def __init__(self, taps: int, channels: int, key: jax.Array):
        bound = taps**-0.5
        kernel = jax.random.uniform(key, (taps, channels), minval=-bound, maxval=bound)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))


class Scale(nnx.Module):
    """A factor for each head or channel, in float32."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))


class Offset(nnx.Module):
    """A term of a sum, or a logarithm, for each head, in float32."""

    def __init__(self, offset: jax.Array):
        self.offset = nnx.Param(offset)


class Mixer(nnx.Module):
    """Projections, gate and norm around the recurrence; the caller passes the latter as `mix`."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        keys = iter(jax.random.split(key, 11))
        width, heads, taps = config.hidden_size, config.mamba_heads, config.mamba_taps
        inner, shared = heads * config.mamba_head_dim, config.mamba_groups * config.mamba_state
        self.z = Linear(width, inner, next(keys))
        self.x = Linear(width, inner, next(keys))
        self.b = Linear(width, shared, next(keys))
        self.c = Linear(width, shared, next(keys))
        self.step = Linear(width, heads, next(keys))
        self.out = Linear(inner, width, next(keys))
        self.x_taps = Taps(taps, inner, next(keys))
        self.b_taps = Taps(taps, shared, next(keys))
        self.c_taps = Taps(taps, shared, next(keys))
        uniform = lambda low, high: jax.random.uniform(next(keys), (heads,), jnp.float32, low, high)
        first = jnp.exp(uniform(*map(math.log, FIRST_STEPS)))
        self.step_bias = Offset(first + jnp.log(-jnp.expm1(-first)))  # the inverse of softplus
        self.log_rate = Offset(jnp.log(uniform(*FIRST_RATES)))
        self.skip = Scale(heads)
        self.norm = Scale(inner)
        self.groups, self.epsilon = config.mamba_groups, config.norm_epsilon
        self.step_min, self.step_max = config.mamba_step_min, config.mamba_step_max or math.inf

    def __call__(self, x: jax.Array, mix: Callable) -> tuple[jax.Array, Any]:
        """Return the layer's output [B, S, D] and the cache that `mix` returns.

        Args:
          x: normalized input, [B, S, D].
          mix: called as `mix(inputs, dt)` with `Inputs` before the convolution, [B, S, channels],
            and the steps [B, S, heads]; returns y [B, S, channels of x] in float32, and a cache.
        """
        bias = self.step_bias.offset[...][None, None]
        dt = jax.nn.softplus(self.step(x).astype(jnp.float32) + bias)
        dt = jnp.clip(dt, self.step_min, self.step_max)
        y, cache = mix(Inputs(self.x(x), self.b(x), self.c(x)), dt)
        y = y * jax.nn.silu(self.z(x).astype(y.dtype))
        groups = y.reshape(*y.shape[:2], self.groups, -1)
        one = jnp.ones(groups.shape[-1:], y.dtype)
        y = rms_norm(groups, one, self.epsilon).reshape(y.shape) * self.norm.scale[...][None, None]
        return self.out(y.astype(x.dtype)), cache

    @property
    def rate(self) -> jax.Array:
        """The rates of decay, [heads], negative."""
        return -jnp.exp(self.log_rate.offset[...])

    @property
    def taps(self) -> Inputs:
        """The taps of each input."""
        return Inputs(self.x_taps, self.b_taps, self.c_taps)

    def with_skip(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """Add the inputs x times a factor of their head to y, both [..., heads, head_dim]; returns
        [..., channels]."""
        y += self.skip.scale[...].reshape((1,) * (x.ndim - 2) + (-1, 1)) * x.astype(y.dtype)
        return y.reshape(*y.shape[:-2], -1)
