"""Mamba-2 (arXiv 2405.21060) as a kind of layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.linear import Linear
from models.layers.norm import rms_norm
from models.layers.recurrent import Recurrent, Sizes
from models.layers.recurrent_parts import Inputs, Scale, Taps, first_log_rate, first_step_bias
from models.recurrence import Tokens, mamba_tokens

if TYPE_CHECKING:
    from models.config import ModelConfig


class Mixer(nnx.Module):
    """Projections, gate and norm around the recurrence; see `Recurrent`."""

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
        self.x_taps = Taps(taps, inner, next(keys), bias=True)
        self.b_taps = Taps(taps, shared, next(keys), bias=True)
        self.c_taps = Taps(taps, shared, next(keys), bias=True)
        self.step_bias = first_step_bias(heads, next(keys))
        self.log_rate = first_log_rate(heads, next(keys))
        self.skip = Scale(heads)
        self.norm = Scale(inner)
        self.groups, self.epsilon = config.mamba_groups, config.norm_epsilon
        self.step_min, self.step_max = config.mamba_step_min, config.mamba_step_max or math.inf

    def __call__(self, x: jax.Array, mix: Callable) -> tuple[jax.Array, Any]:
        bias = self.step_bias.offset[...][None, None]
        dt = jax.nn.softplus(self.step(x).astype(jnp.float32) + bias)
        dt = jnp.clip(dt, self.step_min, self.step_max)
        y, cache = mix(Inputs(self.x(x), self.b(x), self.c(x)), (dt,))
        y = y * jax.nn.silu(self.z(x).astype(y.dtype))
        groups = y.reshape(*y.shape[:2], self.groups, -1)
        one = jnp.ones(groups.shape[-1:], y.dtype)
        y = rms_norm(groups, one, self.epsilon).reshape(y.shape) * self.norm.scale[...][None, None]
        return self.out(y.astype(x.dtype)), cache

    @property
    def taps(self) -> Inputs:
        """The taps of each input."""
        return Inputs(self.x_taps, self.b_taps, self.c_taps)

    def tokens(self, mixed: Inputs, gates: tuple[jax.Array]) -> Tokens:
        """Return what tokens do; the gate is their step."""
        rate = -jnp.exp(self.log_rate.offset[...])
        return mamba_tokens(mixed.value, *gates, rate, mixed.key, mixed.query)

    def outputs(self, y: jax.Array, mixed: Inputs) -> jax.Array:
        """Add the inputs x times a factor of their head to y."""
        x = mixed.value
        y += self.skip.scale[...].reshape((1,) * (x.ndim - 2) + (-1, 1)) * x.astype(y.dtype)
        return y.reshape(*y.shape[:-2], -1)


@dataclasses.dataclass(frozen=True)
class Mamba2(Recurrent):
    """Mamba-2 with `model.mamba_heads` heads, groups of which share b and c."""

    name: ClassVar[str] = "mamba"
    axes: ClassVar = {
        "z/kernel": ("width", "mamba_heads"),
        "x/kernel": ("width", "mamba_heads"),
        "b/kernel": ("width", "mamba_groups"),
        "c/kernel": ("width", "mamba_groups"),
        "step/kernel": ("width", "mamba_heads"),
        "out/kernel": ("mamba_heads", "width"),
        "x_taps/kernel": (None, "mamba_heads"),
        "x_taps/bias": ("mamba_heads",),
        "b_taps/kernel": (None, "mamba_groups"),
        "b_taps/bias": ("mamba_groups",),
        "c_taps/kernel": (None, "mamba_groups"),
        "c_taps/bias": ("mamba_groups",),
        "step_bias/offset": ("mamba_heads",),
        "log_rate/offset": ("mamba_heads",),
        "skip/scale": ("mamba_heads",),
        "norm/scale": ("mamba_heads",),
    }

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return Mixer(config, key)

    def check(self, config: ModelConfig, tensor: int) -> None:
        if config.mamba_groups % tensor:
            raise ValueError(
                f"mesh.tensor={tensor} does not divide the {config.mamba_groups} groups of heads "
                "of Mamba-2 layers (model.mamba_groups); lower mesh.tensor and raise mesh.fsdp"
            )

    def sizes(self, config: ModelConfig) -> Sizes:
        return Sizes(
            heads=config.mamba_heads,
            head_dim=config.mamba_head_dim,
            groups=config.mamba_groups,
            key_dim=config.mamba_state,
            taps=config.mamba_taps,
            gates=1,
        )
