"""Parts of layers with a recurrence: their inputs, and parameters other than matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

FIRST_STEPS = (1e-3, 1e-1)  # range of the steps of a new network whose inputs are 0
FIRST_RATES = (1.0, 16.0)  # range of its rates of decay


@flax.struct.dataclass
class Inputs:
    """The inputs of a recurrence (x, b and c of Mamba-2), or something that each of them has."""

    value: Any
    key: Any
    query: Any


def each(run: Callable, *inputs: Inputs) -> Inputs:
    """Return the results of a function of the value, the key and the query of `inputs`."""
    return Inputs(*(run(*(getattr(y, name) for y in inputs)) for name in ("value", "key", "query")))


class Taps(nnx.Module):
    """The taps of a convolution for each channel, [taps, channels], and its optional bias."""

    def __init__(self, taps: int, channels: int, key: jax.Array, *, bias: bool):
        bound = taps**-0.5
        kernel = jax.random.uniform(key, (taps, channels), minval=-bound, maxval=bound)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32)) if bias else None

    def arrays(self) -> tuple[jax.Array, jax.Array | None]:
        """Return the taps and the bias."""
        return self.kernel[...], None if self.bias is None else self.bias[...]


class Scale(nnx.Module):
    """A factor for each head or channel, in float32."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))


class Offset(nnx.Module):
    """A term of a sum, or a logarithm, for each head, in float32."""

    def __init__(self, offset: jax.Array):
        self.offset = nnx.Param(offset)


def first_step_bias(heads: int, key: jax.Array) -> Offset:
    """Draw what is added to the steps of each head before softplus."""
    low, high = map(math.log, FIRST_STEPS)
    first = jnp.exp(jax.random.uniform(key, (heads,), jnp.float32, low, high))
    return Offset(first + jnp.log(-jnp.expm1(-first)))  # the inverse of softplus


def first_log_rate(heads: int, key: jax.Array) -> Offset:
    """Draw the logarithm of the rate of decay of each head."""
    return Offset(jnp.log(jax.random.uniform(key, (heads,), jnp.float32, *FIRST_RATES)))
