"""Rotary positions: how fast each pair of dimensions turns, and the ways to stretch that.

Pair i of a head turns by `position / theta^(2i / head_dim)`. A model that is to read longer texts
than it was pretrained on turns its slow pairs slower still: `linear`, `llama3` and `yarn` are the
published rules for it, as in the configs of the models that use them.
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
    """Rotary positions of a network.

    Attributes:
      theta: base of the frequencies.
      local_theta: base in layers with a sliding window, whose frequencies are then never scaled;
        0 gives them the same as all others.
      scaling: "none", "linear" (all frequencies / factor; Chen et al., arXiv 2306.15595), "llama3"
        (the slow ones; Llama 3.1) or "yarn" (the slow ones, and attention sharper; Peng et al.,
        arXiv 2309.00071).
      factor: by which the context grew.
      original_length: tokens of the context before that; for "llama3" and "yarn".
      low_frequency_factor: llama3: pairs that turn fewer times in `original_length` are slowed by
        `factor`.
      high_frequency_factor: llama3: pairs that turn more often are left alone.
      beta_fast: yarn: the same as `high_frequency_factor`.
      beta_slow: yarn: the same as `low_frequency_factor`.
      attention_factor: yarn: times queries and keys; 0 = 1 + ln(factor) / 10.

    Raises:
      ValueError: if a field has no meaning, naming it.
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

    def __post_init__(self):
        if self.scaling not in SCALINGS:
            raise ValueError(f"model.rope.scaling={self.scaling!r}; use one of {list(SCALINGS)}")
        if self.theta <= 0 or self.local_theta < 0:
            raise ValueError(
                f"model.rope.theta={self.theta} must be above 0, and model.rope.local_theta="
                f"{self.local_theta} not below"
            )
        if self.scaling != "none" and self.factor < 1:
            raise ValueError(f"model.rope.factor={self.factor}; it must be at least 1")
        if self.scaling in ("llama3", "yarn") and self.original_length < 1:
            raise ValueError(
                f"model.rope.original_length={self.original_length}; rope.scaling={self.scaling!r} "
                "needs the tokens of the context before it was stretched"
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

    def frequencies(self, head_dim: int, local: bool) -> np.ndarray:
        """Radians per token of every pair, float64 [head_dim / 2]."""
        exponent = np.arange(0, head_dim, 2) / head_dim
        if local and self.local_theta:
            return self.local_theta**-exponent
        plain = self.theta**-exponent
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            return _between(plain, self.factor, self._llama3_kept(plain))
        if self.scaling == "yarn":
            return _between(plain, self.factor, self._yarn_kept(head_dim))
        return plain

    def sharpening(self, local: bool) -> float:
        """What queries and keys are multiplied by, each."""
        if self.scaling != "yarn" or (local and self.local_theta):
            return 1.0
        return self.attention_factor or 1 + 0.1 * math.log(self.factor)

    def _llama3_kept(self, plain: np.ndarray) -> np.ndarray:
        turns = self.original_length * plain / (2 * math.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        return np.clip((turns - low) / (high - low), 0, 1)

    def _yarn_kept(self, head_dim: int) -> np.ndarray:
        def pair(turns: float) -> float:  # the pair that turns so often in the original context
            ratio = self.original_length / (turns * 2 * math.pi)
            return head_dim * math.log(ratio) / (2 * math.log(self.theta))

        first = max(math.floor(pair(self.beta_fast)), 0)
        last = min(math.ceil(pair(self.beta_slow)), head_dim - 1)
        width = last - first if last != first else 0.001
        return 1 - np.clip((np.arange(head_dim // 2) - first) / width, 0, 1)


def _between(plain: np.ndarray, factor: float, kept: np.ndarray) -> np.ndarray:
    """Frequencies of which the share `kept` is as it was and the rest divided by `factor`."""
    return plain * kept + plain / factor * (1 - kept)


@flax.struct.dataclass
class Rotation:
    """Cosines and sines of the rotary angles of tokens, [B, S, head_dim / 2] float32."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, position: jax.Array, rope: Rope, head_dim: int, *, local: bool) -> "Rotation":
        """The angles at position [B, S] (tokens), in layers with a sliding window or without."""
        frequency = jnp.asarray(rope.frequencies(head_dim, local), jnp.float32)
        angle = position.astype(jnp.float32)[..., None] * frequency[None, None, :]
        size = rope.sharpening(local)
        return cls(cos=size * jnp.cos(angle), sin=size * jnp.sin(angle))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotary position embedding of x [B, S, heads, head_dim].

    The halves convention of Llama and Qwen: dimension i turns with dimension i + head_dim / 2.
    """
    cos, sin = rotation.cos[:, :, None], rotation.sin[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
