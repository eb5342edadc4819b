"""The layers of a block: RMSNorm, linear maps, rotary positions, SwiGLU and the block itself.

Parameters are float32; a layer casts them to the dtype of what comes in. Layers carry no
sharding metadata: `models.sharding` assigns it by path, because the layers are stacked
and scanned and metadata would not know of the extra axis.
"""

from collections.abc import Callable
from typing import Any

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
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return jnp.multiply(y, self.scale[...].reshape((1,) * (y.ndim - 1) + (-1,))).astype(x.dtype)


class Linear(nnx.Module):
    """x @ kernel, with kernel [inputs, outputs] and no bias."""

    def __init__(self, inputs: int, outputs: int, key: jax.Array):
        self.kernel = nnx.Param(INIT_STDDEV * jax.random.normal(key, (inputs, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...].astype(x.dtype)


def rotate(x: jax.Array, position: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding of x [B, S, heads, head_dim] at position [B, S] (tokens).

    The halves convention of Llama and Qwen: dimension i turns with dimension i + head_dim / 2.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position.astype(jnp.float32)[..., None] * frequency[None, None, :]  # [B, S, half]
    cos, sin = jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]
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
        self.theta = config.rope_theta

    def __call__(self, x: jax.Array, position: jax.Array, attend: Callable) -> tuple[Any, Any]:
        heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)  # [B, S, heads, head_dim]
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, position, self.theta), rotate(k, position, self.theta)
        out, kept = attend(q, k, v)
        return self.o(out.reshape(*x.shape[:2], -1)), kept


class FeedForward(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        gate, up, down = jax.random.split(key, 3)
        self.gate = Linear(config.hidden_size, config.ffn_size, gate)
        self.up = Linear(config.hidden_size, config.ffn_size, up)
        self.down = Linear(config.ffn_size, config.hidden_size, down)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Pre-norm attention and feed-forward around the residual stream."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention, feed_forward = jax.random.split(key)
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config, attention)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = FeedForward(config, feed_forward)

    def __call__(self, x: jax.Array, position: jax.Array, attend: Callable) -> tuple[Any, Any]:
        """x [B, S, D] at position [B, S]; `attend(q, k, v)` gives the mixed values [B, S, heads,
        head_dim] and whatever is to be kept of this layer (a cache, or None)."""
        mixed, kept = self.attention(self.attention_norm(x), position, attend)
        x = x + mixed
        return x + self.ffn(self.ffn_norm(x)), kept
