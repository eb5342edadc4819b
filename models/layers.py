"""The layers of a block: RMSNorm, linear maps, rotary positions, SwiGLU and the block itself.

Parameters are float32; a layer casts them to the dtype of what comes in. Layers carry no
sharding metadata: `models.sharding` assigns it by path, because the layers are stacked
and scanned and metadata would not know of the extra axis.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig

INIT_STDDEV = 0.02


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis, computed in float32."""

    def __init__(self, size: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.scale[...], self.epsilon)


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
    """x @ kernel, with kernel [inputs, outputs] and no bias."""

    def __init__(self, inputs: int, outputs: int, key: jax.Array):
        self.kernel = nnx.Param(INIT_STDDEV * jax.random.normal(key, (inputs, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return multiply(x, self.kernel[...].astype(x.dtype))


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


@flax.struct.dataclass
class Rotation:
    """Cosines and sines of the rotary angles of tokens, [B, S, head_dim / 2] float32."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, position: jax.Array, config: ModelConfig) -> "Rotation":
        """The angles at position [B, S] (tokens)."""
        half = config.head_dim // 2
        frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
        angle = position.astype(jnp.float32)[..., None] * frequency[None, None, :]
        return cls(cos=jnp.cos(angle), sin=jnp.sin(angle))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotary position embedding of x [B, S, heads, head_dim].

    The halves convention of Llama and Qwen: dimension i turns with dimension i + head_dim / 2.
    """
    cos, sin = rotation.cos[:, :, None], rotation.sin[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Attention(nnx.Module):
    """Projections and norms around attention; what attends to what is the caller's `attend`."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        q, k, v, o = jax.random.split(key, 4)
        width, head_dim = config.hidden_size, config.head_dim
        self.q = Linear(width, config.num_heads * head_dim, q)
        self.k = Linear(width, config.num_kv_heads * head_dim, k)
        self.v = Linear(width, config.num_kv_heads * head_dim, v)
        self.o = Linear(config.num_heads * head_dim, width, o)
        self.q_norm = RMSNorm(head_dim, config.norm_epsilon) if config.qk_norm else None
        self.k_norm = RMSNorm(head_dim, config.norm_epsilon) if config.qk_norm else None
        self.head_dim = head_dim

    def __call__(self, x: jax.Array, rotation: Rotation, attend: Callable) -> tuple[Any, Any]:
        heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)  # [B, S, heads, head_dim]
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        out, kept = attend(rotate(q, rotation), rotate(k, rotation), v)
        return self.o(out.reshape(*x.shape[:2], -1)), kept


class FeedForward(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        gate, up, down = jax.random.split(key, 3)
        self.gate = Linear(config.hidden_size, config.ffn_size, gate)
        self.up = Linear(config.hidden_size, config.ffn_size, up)
        self.down = Linear(config.ffn_size, config.hidden_size, down)

    def __call__(self, x: jax.Array) -> jax.Array:
        cast = lambda linear: linear.kernel[...].astype(x.dtype)
        return swiglu(x, cast(self.gate), cast(self.up), cast(self.down))


@jax.custom_vjp
def swiglu(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """(silu(x @ gate) * (x @ up)) @ down, keeping x and the two inner products for the gradient."""
    return _swiglu_forward(x, gate, up, down)[0]


def _swiglu_forward(
    x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array
) -> tuple[jax.Array, tuple]:
    g, u = x @ gate, x @ up
    return (g * jax.nn.sigmoid(g) * u) @ down, (x, g, u, gate, up, down)


def _swiglu_backward(kept: tuple, cotangent: jax.Array) -> tuple:
    x, g, u, gate, up, down = kept
    share = jax.nn.sigmoid(g)
    inner = cotangent @ down.T
    ddown = kernel_gradient(g * share * u, cotangent)
    dg, du = inner * u * share * (1 + g * (1 - share)), inner * g * share
    return dg @ gate.T + du @ up.T, kernel_gradient(x, dg), kernel_gradient(x, du), ddown


swiglu.defvjp(_swiglu_forward, _swiglu_backward)


class Block(nnx.Module):
    """Pre-norm attention and feed-forward around the residual stream."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention, feed_forward = jax.random.split(key)
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, attention)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = FeedForward(config, feed_forward)

    def __call__(self, x: jax.Array, rotation: Rotation, attend: Callable) -> tuple[Any, Any]:
        """x [B, S, D]; `attend(q, k, v)` gives the mixed values [B, S, heads, head_dim] and
        whatever is to be kept of this layer (a cache, or None)."""
        mixed, kept = self.attention(self.attention_norm(x), rotation, attend)
        x = x + mixed
        return x + self.ffn(self.ffn_norm(x)), kept
