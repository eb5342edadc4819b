"""The feed-forward, gated or plain, as kinds of layers. They work on single tokens, so they have no
cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers.linear import Linear, kernel_gradient
from models.layers.protocol import (
    BranchTokens,
    Cost,
    LayerCache,
    LayerKind,
    Rows,
    Slots,
    TrunkTokens,
)
from models.products import product

if TYPE_CHECKING:
    from models.config import ModelConfig


class GatedFeedForward(nnx.Module):
    """The gated feed-forward, down(activation(gate(x)) * up(x)): SwiGLU with silu."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        gate, up, down = jax.random.split(key, 3)
        self.gate = Linear(config.hidden_size, config.ffn_size, gate)
        self.up = Linear(config.hidden_size, config.ffn_size, up)
        self.down = Linear(config.ffn_size, config.hidden_size, down)
        self.activation = config.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        cast = lambda linear: linear.kernel[...].astype(x.dtype)
        return gated(x, cast(self.gate), cast(self.up), cast(self.down), self.activation)


class PlainFeedForward(nnx.Module):
    """The feed-forward without a gate, down(activation(up(x)))."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        up, down = jax.random.split(key)
        self.up = Linear(config.hidden_size, config.ffn_size, up)
        self.down = Linear(config.ffn_size, config.hidden_size, down)
        self.activation = config.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(ACTIVATION[self.activation](self.up(x)))


ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def gated(
    x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, activation: str
) -> jax.Array:
    """Compute (activation(x @ gate) * (x @ up)) @ down.

    The backward pass reads x and the two inner products and recomputes the rest.

    Args:
      x: [..., D].
      gate: [D, F].
      up: [D, F].
      down: [F, D].
      activation: a name in `ACTIVATION`.
    """
    return _gated_forward(x, gate, up, down, activation)[0]


def _gated_forward(
    x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, activation: str
) -> tuple[jax.Array, tuple]:
    g, u = product(x, gate), product(x, up)
    return product(ACTIVATION[activation](g) * u, down), (x, g, u, gate, up, down)


def _gated_backward(activation: str, residuals: tuple, cotangent: jax.Array) -> tuple:
    x, g, u, gate, up, down = residuals
    active, derivative = jax.jvp(ACTIVATION[activation], (g,), (jnp.ones_like(g),))
    inner = product(cotangent, down.T)
    ddown = kernel_gradient(active * u, cotangent)
    dg, du = inner * u * derivative, inner * active
    dx = product(dg, gate.T) + product(du, up.T)
    return dx, kernel_gradient(x, dg), kernel_gradient(x, du), ddown


gated.defvjp(_gated_forward, _gated_backward)


@dataclasses.dataclass(frozen=True)
class FeedForward(LayerKind):
    """The gated feed-forward with `model.ffn_size` and `model.activation`."""

    name: ClassVar[str] = "ffn"
    axes: ClassVar = {
        "gate/kernel": ("width", "ffn"),
        "up/kernel": ("width", "ffn"),
        "down/kernel": ("ffn", "width"),
    }
    kernels: ClassVar[int] = 3

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return GatedFeedForward(config, key)

    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, None]:
        return layer(x), None

    def on_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        slots: Slots,
        prepared: Any,
        trunk_cache: LayerCache,
        branch_cache: LayerCache | None,
    ) -> tuple[jax.Array, None]:
        return layer(x), None

    def on_rows_and_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        rows: Rows,
        slots: Slots,
        prepared: tuple[Any, Any],
    ) -> jax.Array:
        return layer(x)

    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        width, inner, count = config.hidden_size, config.ffn_size, tokens.count
        return Cost(
            linear=2 * count * self.kernels * width * inner,
            last=2 * count * width * inner,
            moved=count * (2 * width + self.kernels * inner),
        )


@dataclasses.dataclass(frozen=True)
class PlainFeed(FeedForward):
    """The feed-forward without a gate, with `model.ffn_size` and `model.activation`."""

    name: ClassVar[str] = "plain_ffn"
    axes: ClassVar = {"up/kernel": ("width", "ffn"), "down/kernel": ("ffn", "width")}
    kernels: ClassVar[int] = 2

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return PlainFeedForward(config, key)
