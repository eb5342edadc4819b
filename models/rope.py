"""Rotary position embedding (RoPE), and its extensions to longer contexts.

Pair i of a head is rotated by `position / theta^(2i / head_dim)`. To read longer texts than it was
pretrained on, a model lowers the frequencies of its slow pairs: `linear`, `llama3` and `yarn` are
published rules for it, with the parameters of the configs of models that use them.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

SCALINGS = ("none", "linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding of a network.

    Attributes:
      theta: base of the frequencies.
      local_theta: base in layers with a sliding window, whose frequencies are then never scaled;
        0 gives them the frequencies of all other layers.
      scaling: "none", "linear" (divides all frequencies by `factor`; Chen et al., arXiv
        2306.15595), "llama3" (divides the low ones; Llama 3.1) or "yarn" (divides the low ones and
        scales queries and keys; Peng et al., arXiv 2309.00071).
      factor: ratio of the extended to the original context length.
      original_length: original context length in tokens; for "llama3" and "yarn".
      low_frequency_factor: llama3: frequencies with fewer rotations in `original_length` tokens are
        divided by `factor`.
      high_frequency_factor: llama3: frequencies with more rotations are unchanged.
      beta_fast: yarn: as `high_frequency_factor`.
      beta_slow: yarn: as `low_frequency_factor`.
      partial_rotary_factor: share of the dimensions of a head that are rotated, the first ones.
      attention_factor: yarn: factor of queries and of keys; 0 means 1 + ln(factor) / 10.

    Raises:
      ValueError: If a field has an invalid value; the message names the field.
    """

    theta: float = 1e4
    local_theta: float = 0.0
    scaling: str = "none"
    factor: float = 1.0
    original_length: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0
    partial_rotary_factor: float = 1.0

    def __post_init__(self):
        if self.scaling not in SCALINGS:
            raise ValueError(f"model.rope.scaling={self.scaling!r}; use one of {list(SCALINGS)}")
        if self.theta <= 0 or self.local_theta < 0:
            raise ValueError(
                f"model.rope.theta={self.theta} must be above 0, and model.rope.local_theta="
                f"{self.local_theta} at least 0"
            )
        if not 0 < self.partial_rotary_factor <= 1:
            raise ValueError(
                f"model.rope.partial_rotary_factor={self.partial_rotary_factor} must be above 0, "
                "and at most 1"
            )
        if self.scaling != "none" and self.factor < 1:
            raise ValueError(f"model.rope.factor={self.factor}; it must be at least 1")
        if self.scaling in ("llama3", "yarn") and self.original_length < 1:
            raise ValueError(
                f"model.rope.original_length={self.original_length}; rope.scaling={self.scaling!r} "
                "needs the original context length in tokens, at least 1"
            )
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"model.rope.high_frequency_factor={self.high_frequency_factor} must be above "
                f"low_frequency_factor={self.low_frequency_factor}"
            )
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"model.rope.beta_fast={self.beta_fast} must be above beta_slow={self.beta_slow}"
            )

    def rotary_dim(self, head_dim: int) -> int:
        """Return the number of dimensions of a head that are rotated."""
        return int(head_dim * self.partial_rotary_factor)

    def frequencies(self, head_dim: int, local: bool) -> np.ndarray:
        """Return the radians per token of every pair, float64 [rotary_dim / 2].

        Args:
          head_dim: size of a head.
          local: for layers with a sliding window.
        """
        size = self.rotary_dim(head_dim)
        exponent = np.arange(0, size, 2) / size
        if local and self.local_theta:
            return self.local_theta**-exponent
        plain = self.theta**-exponent
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            return _interpolate(plain, self.factor, self._llama3_unscaled(plain))
        if self.scaling == "yarn":
            return _interpolate(plain, self.factor, self._yarn_unscaled(size))
        return plain

    def qk_factor(self, local: bool) -> float:
        """Return the factor of queries and of keys in layers with or without a sliding window."""
        if self.scaling != "yarn" or (local and self.local_theta):
            return 1.0
        return self.attention_factor or 1 + 0.1 * math.log(self.factor)

    def _llama3_unscaled(self, plain: np.ndarray) -> np.ndarray:
        """Return for each pair the share of its frequency that is not scaled."""
        turns = self.original_length * plain / (2 * math.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        return np.clip((turns - low) / (high - low), 0, 1)

    def _yarn_unscaled(self, size: int) -> np.ndarray:
        """Return for each pair the share of its frequency that is not scaled."""

        def pair(turns: float) -> float:  # index of the pair with `turns` in the original context
            ratio = self.original_length / (turns * 2 * math.pi)
            return size * math.log(ratio) / (2 * math.log(self.theta))

        first = max(math.floor(pair(self.beta_fast)), 0)
        last = min(math.ceil(pair(self.beta_slow)), size - 1)
        width = last - first if last != first else 0.001
        return 1 - np.clip((np.arange(size // 2) - first) / width, 0, 1)


def _interpolate(plain: np.ndarray, factor: float, unscaled: np.ndarray) -> np.ndarray:
    """Divide frequencies by `factor`, except for the share `unscaled` of each."""
    return plain * unscaled + plain / factor * (1 - unscaled)


@flax.struct.dataclass
class Rotation:
    """Cosines and sines of the rotary angles of tokens, float32 [B, S, rotary_dim / 2] each."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, position: jax.Array, rope: Rope, head_dim: int, *, local: bool) -> "Rotation":
        """Return the rotation at `position` [B, S]; `local` is for layers with a sliding window."""
        frequency = jnp.asarray(rope.frequencies(head_dim, local), jnp.float32)
        angle = position.astype(jnp.float32)[..., None] * frequency[None, None, :]
        size = rope.qk_factor(local)
        return cls(cos=size * jnp.cos(angle), sin=size * jnp.sin(angle))

    @classmethod
    def by_nothing(cls, position: jax.Array, rope: Rope, head_dim: int) -> "Rotation":
        """Return the rotation at `position` [B, S] that changes nothing, in the shape of others."""
        one = jnp.ones((*position.shape, rope.rotary_dim(head_dim) // 2), jnp.float32)
        return cls(cos=one, sin=jnp.zeros_like(one))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Apply the rotary position embedding to x [B, S, heads, head_dim].

    As in Llama and Qwen, dimension i is paired with dimension i + rotary_dim / 2; those after
    rotary_dim stay as they are.
    """
    cos, sin = rotation.cos[:, :, None], rotation.sin[:, :, None]
    size = cos.shape[-1]
    a, b, rest = jnp.split(x.astype(jnp.float32), [size, 2 * size], axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1).astype(x.dtype)
