"""Time JAX functions, and measure the rates of a large copy and matmul on the device."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention.turns import Refused, enough_calls, first_line
from benchmarks.attention.workload import PASSES

TRIAL_STEPS = 10  # decode steps for a first estimate of the time of one


@dataclasses.dataclass
class Jitted:
    """A JAX function as a contender.

    Attributes:
      name: name in tables.
      attend: function of (inputs, context) that returns the attention output; differentiable in
        `inputs`.
      inputs: function of whether the pass is decode, that returns a dict of arrays with a "query"
        in the shape of the output, the context of `attend`, and a cotangent of the output.
      pairs: function of a pass that returns its visible pairs.
      passes: the passes that it supports.
      comparable: whether its inputs are those of the workload.
      ours: whether it is an implementation of this project.
      calls: calls per sample of each prepared pass.
    """

    name: str
    attend: Callable[[Any, Any], jax.Array]
    inputs: Callable[[bool], tuple[dict[str, jax.Array], Any, jax.Array]]
    pairs: Callable[[str], int]
    passes: Sequence[str] = PASSES
    comparable: bool = True
    ours: bool = False
    calls: dict[str, int] = dataclasses.field(default_factory=dict)

    def prepare(self, step: str, seconds: float) -> None:
        trial = TRIAL_STEPS if step == "decode" else 1
        _or_refused(lambda: self._timed(step, trial))
        self.calls[step] = enough_calls(self._timed(step, trial), seconds)
        self._timed(step, self.calls[step])  # compiles the loop of this length

    def sample(self, step: str) -> float:
        return self._timed(step, self.calls[step])

    def output(self, step: str) -> np.ndarray:
        if not self.comparable:
            raise Refused("its inputs differ from those of the workload")
        x, context, _ = _or_refused(lambda: self.inputs(step == "decode"))
        out = _or_refused(lambda: np.asarray(self._forward(x, context).astype(jnp.float32)))
        return out.reshape(out.shape[0], -1, *out.shape[-2:])

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients of the inputs by name, for the cotangent of the workload.

        Raises:
          Refused: If the contender cannot compute them.
        """
        x, context, cotangent = _or_refused(lambda: self.inputs(False))
        return _or_refused(lambda: jax.device_get(self._whole(x, context, cotangent)[1][0]))

    @functools.cached_property
    def _forward(self) -> Callable:
        return jax.jit(self.attend)

    @functools.cached_property
    def _linearized(self) -> Callable:
        return jax.jit(lambda x, context: jax.vjp(lambda y: self.attend(y, context), x))

    @functools.cached_property
    def _whole(self) -> Callable:
        def run(x: Any, context: Any, cotangent: jax.Array) -> Any:
            out, vjp = jax.vjp(lambda y: self.attend(y, context), x)
            return out, vjp(cotangent)

        return jax.jit(run)

    @functools.cached_property
    def _decode(self) -> Callable:
        def run(x: Any, context: Any, steps: int) -> jax.Array:
            # As in a rollout, a step starts after the previous one has ended. The barrier keeps the
            # compiler from hoisting work out of the loop. The length is static, so that a GPU need
            # not ask the host whether the loop continues.
            def step(_: jax.Array, query: jax.Array) -> jax.Array:
                inputs = jax.lax.optimization_barrier((x | {"query": query}, context))
                return self.attend(*inputs)

            return jax.lax.fori_loop(0, steps, step, x["query"])

        return jax.jit(run, static_argnums=2)

    def _timed(self, step: str, calls: int) -> float:
        x, context, cotangent = _or_refused(lambda: self.inputs(step == "decode"))
        if step == "decode":
            return _time_calls(lambda: self._decode(x, context, calls), 1) / calls
        if step == "forward":
            return _time_calls(lambda: self._forward(x, context), calls)
        if step == "whole":
            return _time_calls(lambda: self._whole(x, context, cotangent), calls)
        # The residuals are computed before the timing starts, and freed between samples.
        _, vjp = jax.block_until_ready(self._linearized(x, context))
        return _time_calls(lambda: _apply(vjp, cotangent), calls)


@jax.jit
def _apply(vjp: Callable, cotangent: jax.Array) -> Any:
    return vjp(cotangent)


def _or_refused(call: Callable[[], Any]) -> Any:
    """Return the result of a call; errors of kernels, compilers and allocators become Refused."""
    try:
        return jax.block_until_ready(call())
    except (ValueError, RuntimeError) as error:
        raise Refused(first_line(error)) from error


def _time_calls(call: Callable[[], Any], calls: int) -> float:
    """Return the mean seconds of `calls` calls that are queued on the device."""
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def machine() -> dict[str, Any]:
    """Return the device and the rate of a copy larger than its caches, in bytes read and written
    per second."""
    device = jax.devices()[0]
    size = 2**28 if device.platform == "cpu" else 2**32
    source = jnp.ones(size // 4, jnp.float32)
    negate = jax.jit(jnp.negative)  # a copy that the compiler cannot remove
    seconds = _best(lambda: negate(source))
    return {
        "device": device.platform,
        "device_kind": device.device_kind,
        "jax": jax.__version__,
        "copy_gb_per_s": 2 * size / seconds / 1e9,
    }


def matmul(dtype: str) -> dict[str, float]:
    """Return the rate of a large matmul in a dtype."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    square = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    multiply = jax.jit(jnp.matmul)
    return {"matmul_tflop_per_s": 2 * size**3 / _best(lambda: multiply(square, square)) / 1e12}


def _best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Return the seconds of a call: the minimum over samples of three calls."""
    jax.block_until_ready(call())
    return min(_time_calls(call, 3) for _ in range(repeats))
