"""The layers of a block: RMSNorm, linear maps, attention's projections, the gated feed-forward and
the block itself.

Parameters are float32; a layer casts them to the dtype of what comes in. Layers carry no
sharding metadata: `models.sharding` assigns it by path, because the layers are stacked
and scanned and metadata would not know of the extra axis.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.rope import Rotation, rotate

INIT_STDDEV = 0.02


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis, computed in float32; zero-centered, the factor is
    1 + scale."""

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
    """x / rms(x) * scale over the last axis; keeps x alone for the gradient."""
    return (_normalised(x, epsilon)[0] * _wide(scale, x)).astype(x.dtype)


def _wide(scale: jax.Array, x: jax.Array) -> jax.Array:
    return scale.reshape((1,) * (x.ndim - 1) + (-1,))


def _normalised(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    y = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    return y * inverse, inverse


def _rms_norm_backward(
    epsilon: float, kept: tuple, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, scale = kept
    y, inverse = _normalised(x, epsilon)
    cotangent = cotangent.astype(jnp.float32)
    dy = cotangent * _wide(scale, x)
    dx = inverse * (dy - y * jnp.mean(y * dy, axis=-1, keepdims=True))
    return dx.astype(x.dtype), (cotangent * y).sum(axis=tuple(range(x.ndim - 1)))


rms_norm.defvjp(
    lambda x, scale, epsilon: (rms_norm(x, scale, epsilon), (x, scale)), _rms_norm_backward
)


class Linear(nnx.Module):
    """x @ kernel, with kernel [inputs, outputs], and plus bias [outputs] where there is one."""

    def __init__(self, inputs: int, outputs: int, key: jax.Array, *, bias: bool = False):
        self.kernel = nnx.Param(INIT_STDDEV * jax.random.normal(key, (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        product = multiply(x, self.kernel[...].astype(x.dtype))
        if self.bias is None:
            return product
        return product + self.bias[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., inputs] @ kernel [inputs, outputs]."""
    return x @ kernel


def _multiply_backward(kept: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return cotangent @ kernel.T, kernel_gradient(x, cotangent)


multiply.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _multiply_backward)


def kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The gradient of a kernel: x^T @ cotangent over all tokens, [inputs, outputs].

    As one product of two matrices with the longer side last: left to itself, XLA's CPU backend
    contracts the token axes of [B, S, D] one by one.
    """
    x, cotangent = (y.reshape(-1, y.shape[-1]) for y in (x, cotangent))
    if x.shape[-1] > cotangent.shape[-1]:
        return (cotangent.T @ x).T
    return x.T @ cotangent


class Attention(nnx.Module):
    """Projections and norms around attention; what attends to what is the caller's `attend`."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        q, k, v, o = jax.random.split(key, 4)
        width, head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_heads * head_dim, config.num_kv_heads * head_dim
        self.q = Linear(width, queries, q, bias=config.qkv_bias)
        self.k = Linear(width, keys, k, bias=config.qkv_bias)
        self.v = Linear(width, keys, v, bias=config.qkv_bias)
        self.o = Linear(queries, width, o)
        normed = {"none": (0, 0), "head": (head_dim, head_dim), "all_heads": (queries, keys)}
        self.q_norm, self.k_norm = (
            RMSNorm(size, config) if size else None for size in normed[config.qk_norm]
        )
        self.norm_all_heads = config.qk_norm == "all_heads"
        self.head_dim = head_dim

    def __call__(self, x: jax.Array, rotation: Rotation, attend: Callable) -> tuple[Any, Any]:
        heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)  # [B, S, heads, head_dim]
        q, k, v = self.q(x), self.k(x), heads(self.v(x))
        if self.norm_all_heads:
            q, k = heads(_normed(self.q_norm, q)), heads(_normed(self.k_norm, k))
        else:
            q, k = _normed(self.q_norm, heads(q)), _normed(self.k_norm, heads(k))
        out, kept = attend(rotate(q, rotation), rotate(k, rotation), v)
        return self.o(out.reshape(*x.shape[:2], -1)), kept


class FeedForward(nnx.Module):
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


ACTIVATION: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def gated(
    x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, activation: str
) -> jax.Array:
    """(activation(x @ gate) * (x @ up)) @ down, keeping x and the two inner products for the
    gradient."""
    return _gated_forward(x, gate, up, down, activation)[0]


def _gated_forward(
    x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array, activation: str
) -> tuple[jax.Array, tuple]:
    g, u = x @ gate, x @ up
    return (ACTIVATION[activation](g) * u) @ down, (x, g, u, gate, up, down)


def _gated_backward(activation: str, kept: tuple, cotangent: jax.Array) -> tuple:
    x, g, u, gate, up, down = kept
    active, slope = jax.jvp(ACTIVATION[activation], (g,), (jnp.ones_like(g),))
    inner = cotangent @ down.T
    ddown = kernel_gradient(active * u, cotangent)
    dg, du = inner * u * slope, inner * active
    return dg @ gate.T + du @ up.T, kernel_gradient(x, dg), kernel_gradient(x, du), ddown


gated.defvjp(_gated_forward, _gated_backward)


class Block(nnx.Module):
    """Attention and feed-forward around the residual stream, with norms before them, after them or
    both."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention, feed_forward = jax.random.split(key)
        norm = lambda where: RMSNorm(config.hidden_size, config) if where else None
        before, after = config.norm != "after", config.norm != "before"
        self.attention_norm = norm(before)
        self.attention = Attention(config, attention)
        self.attention_post_norm = norm(after)
        self.ffn_norm = norm(before)
        self.ffn = FeedForward(config, feed_forward)
        self.ffn_post_norm = norm(after)

    def __call__(self, x: jax.Array, rotation: Rotation, attend: Callable) -> tuple[Any, Any]:
        """x [B, S, D]; `attend(q, k, v)` gives the mixed values [B, S, heads, head_dim] and
        whatever is to be kept of this layer (a cache, or None)."""
        mixed, kept = self.attention(_normed(self.attention_norm, x), rotation, attend)
        x = x + _normed(self.attention_post_norm, mixed)
        return x + _normed(self.ffn_post_norm, self.ffn(_normed(self.ffn_norm, x))), kept


def _normed(norm: RMSNorm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)
