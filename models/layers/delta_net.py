"""Gated DeltaNet (arXiv 2412.06464) as a kind of layer, as Qwen3.5 has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.linear import Linear
from models.layers.norm import rms_norm
from models.layers.recurrent import Recurrent, Sizes
from models.layers.recurrent_parts import Inputs, Scale, Taps, first_log_rate, first_step_bias
from models.recurrence import Tokens, delta_tokens
from models.triangular import unit_inverse_flops

if TYPE_CHECKING:
    from models.config import ModelConfig


class Mixer(nnx.Module):
    """Projections, norm and gate around the recurrence; see `Recurrent`."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        keys = iter(jax.random.split(key, 12))
        width, heads, taps = config.hidden_size, config.delta_heads, config.delta_taps
        inner, shared = heads * config.delta_head_dim, config.delta_key_heads * config.delta_key_dim
        self.z = Linear(width, inner, next(keys))
        self.v = Linear(width, inner, next(keys))
        self.k = Linear(width, shared, next(keys))
        self.q = Linear(width, shared, next(keys))
        self.step = Linear(width, heads, next(keys))
        self.strength = Linear(width, heads, next(keys))
        self.out = Linear(inner, width, next(keys))
        self.v_taps = Taps(taps, inner, next(keys), bias=False)
        self.k_taps = Taps(taps, shared, next(keys), bias=False)
        self.q_taps = Taps(taps, shared, next(keys), bias=False)
        self.step_bias = first_step_bias(heads, next(keys))
        self.log_rate = first_log_rate(heads, next(keys))
        self.norm = Scale(config.delta_head_dim)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array, mix: Callable) -> tuple[jax.Array, Any]:
        bias, log_rate = (y.offset[...][None, None] for y in (self.step_bias, self.log_rate))
        step = jax.nn.softplus(self.step(x).astype(jnp.float32) + bias)
        strength = jax.nn.sigmoid(self.strength(x).astype(jnp.float32))
        gates = -jnp.exp(log_rate) * step, strength
        y, cache = mix(Inputs(self.v(x), self.k(x), self.q(x)), gates)
        heads = y.reshape(*y.shape[:2], -1, self.norm.scale.shape[0])
        y = rms_norm(heads, self.norm.scale[...], self.epsilon).reshape(y.shape)
        y = y * jax.nn.silu(self.z(x).astype(y.dtype))
        return self.out(y.astype(x.dtype)), cache

    @property
    def taps(self) -> Inputs:
        """The taps of each input."""
        return Inputs(self.v_taps, self.k_taps, self.q_taps)

    def tokens(self, mixed: Inputs, gates: tuple[jax.Array, jax.Array]) -> Tokens:
        """Return what tokens do; the gates are the logarithm of their decay and their strength."""
        return delta_tokens(mixed.value, mixed.key, mixed.query, *gates)

    def outputs(self, y: jax.Array, mixed: Inputs) -> jax.Array:
        """Join the heads of y."""
        del mixed
        return y.reshape(*y.shape[:-2], -1)


@dataclasses.dataclass(frozen=True)
class DeltaNet(Recurrent):
    """Gated DeltaNet with `model.delta_heads` heads of values, groups of which share a head of keys
    and queries."""

    name: ClassVar[str] = "delta"
    pair_arrays: ClassVar[int] = 3  # with the triangular system and its inverse
    axes: ClassVar = {
        "z/kernel": ("width", "delta_heads"),
        "v/kernel": ("width", "delta_heads"),
        "k/kernel": ("width", "delta_key_heads"),
        "q/kernel": ("width", "delta_key_heads"),
        "step/kernel": ("width", "delta_heads"),
        "strength/kernel": ("width", "delta_heads"),
        "out/kernel": ("delta_heads", "width"),
        "v_taps/kernel": (None, "delta_heads"),
        "k_taps/kernel": (None, "delta_key_heads"),
        "q_taps/kernel": (None, "delta_key_heads"),
        "step_bias/offset": ("delta_heads",),
        "log_rate/offset": ("delta_heads",),
        "norm/scale": ("norm",),
    }

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return Mixer(config, key)

    def check(self, config: ModelConfig, tensor: int) -> None:
        if config.delta_key_heads % tensor:
            raise ValueError(
                f"mesh.tensor={tensor} does not divide the {config.delta_key_heads} heads of keys "
                "of DeltaNet layers (model.delta_key_heads); lower mesh.tensor and raise mesh.fsdp"
            )

    def sizes(self, config: ModelConfig) -> Sizes:
        return Sizes(
            heads=config.delta_heads,
            head_dim=config.delta_head_dim,
            groups=config.delta_key_heads,
            key_dim=config.delta_key_dim,
            taps=config.delta_taps,
            gates=2,
        )

    def correction(self, config: ModelConfig, count: int, chunk: int) -> int:
        """What the state has for the keys, the products of keys, and the triangular systems."""
        s = self.sizes(config)
        products = 2 * count * (s.inner * s.key_dim + chunk * (s.shared + s.inner))
        return products + count * s.heads * unit_inverse_flops(chunk) // chunk
