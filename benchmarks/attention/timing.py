"""Functions of JAX under a clock, and what the machine could do at best."""

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

SOME_STEPS = 10  # of decoding, to see how long one takes


@dataclasses.dataclass
class Jitted:
    """A function of JAX as a contender.

    Attributes:
      name: to be printed.
      attend: (inputs, given) to the mixed values, differentiable in `inputs`.
      inputs: of decode or of the other passes, made when first asked for: a dict with a "query" of
        the result's shape, what else `attend` is given, and a cotangent of the result.
      pairs: visible pairs of a pass.
      passes: that it is meant for.
      comparable: its inputs are those of the workload.
      ours: it is the product's.
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
        some = SOME_STEPS if step == "decode" else 1
        _asked(lambda: self._timed(step, some))
        self.calls[step] = enough_calls(self._timed(step, some), seconds)
        self._timed(step, self.calls[step])  # a loop of another length is another program

    def sample(self, step: str) -> float:
        return self._timed(step, self.calls[step])

    def output(self, step: str) -> np.ndarray:
        if not self.comparable:
            raise Refused("it has other inputs than the others")
        x, given, _ = _asked(lambda: self.inputs(step == "decode"))
        found = _asked(lambda: np.asarray(self._forward(x, given).astype(jnp.float32)))
        return found.reshape(found.shape[0], -1, *found.shape[-2:])

    def gradients(self) -> dict[str, np.ndarray]:
        """By input, for the cotangent of the workload.

        Raises:
          Refused: it cannot compute them.
        """
        x, given, slope = _asked(lambda: self.inputs(False))
        return _asked(lambda: jax.device_get(self._whole(x, given, slope)[1][0]))

    @functools.cached_property
    def _forward(self) -> Callable:
        return jax.jit(self.attend)

    @functools.cached_property
    def _linearized(self) -> Callable:
        return jax.jit(lambda x, given: jax.vjp(lambda y: self.attend(y, given), x))

    @functools.cached_property
    def _whole(self) -> Callable:
        def run(x: Any, given: Any, slope: jax.Array) -> Any:
            mixed, pull = jax.vjp(lambda y: self.attend(y, given), x)
            return mixed, pull(slope)

        return jax.jit(run)

    @functools.cached_property
    def _decode(self) -> Callable:
        def run(x: Any, given: Any, steps: int) -> jax.Array:
            # As in a rollout, a step begins when the one before it has ended. Behind the barrier
            # nothing can be computed once for all steps. A GPU need not ask the host whether a loop
            # of known length goes on.
            def step(_: jax.Array, query: jax.Array) -> jax.Array:
                now, at = jax.lax.optimization_barrier((x | {"query": query}, given))
                return self.attend(now, at)

            return jax.lax.fori_loop(0, steps, step, x["query"])

        return jax.jit(run, static_argnums=2)

    def _timed(self, step: str, calls: int) -> float:
        x, given, slope = _asked(lambda: self.inputs(step == "decode"))
        if step == "decode":
            return _clock(lambda: self._decode(x, given, calls), 1) / calls
        if step == "forward":
            return _clock(lambda: self._forward(x, given), calls)
        if step == "whole":
            return _clock(lambda: self._whole(x, given, slope), calls)
        # What forward keeps is made outside of the clock, and not kept between samples.
        _, pull = jax.block_until_ready(self._linearized(x, given))
        return _clock(lambda: _pulled(pull, slope), calls)


@jax.jit
def _pulled(pull: Callable, slope: jax.Array) -> Any:
    return pull(slope)


def _asked(call: Callable[[], Any]) -> Any:
    """What an implementation gives, or its refusal: that of a kernel, a compiler or the memory."""
    try:
        return jax.block_until_ready(call())
    except (ValueError, RuntimeError) as error:
        raise Refused(first_line(error)) from error


def _clock(call: Callable[[], Any], calls: int) -> float:
    """Seconds of a call, of so many that are handed to the device one after the other."""
    start = time.perf_counter()
    for _ in range(calls):
        done = call()
    jax.block_until_ready(done)
    return (time.perf_counter() - start) / calls


def machine() -> dict[str, Any]:
    """The device, and bytes a second, read and written, of a copy that no cache holds."""
    device = jax.devices()[0]
    size = 2**28 if device.platform == "cpu" else 2**32
    source = jnp.ones(size // 4, jnp.float32)
    negate = jax.jit(jnp.negative)  # a copy that no compiler leaves out
    seconds = _best(lambda: negate(source))
    return {
        "device": device.platform,
        "device_kind": device.device_kind,
        "jax": jax.__version__,
        "copy_gb_per_s": 2 * size / seconds / 1e9,
    }


def matmul(dtype: str) -> dict[str, float]:
    """What the device makes of a large matmul in this dtype."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    square = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    multiply = jax.jit(jnp.matmul)
    return {"matmul_tflop_per_s": 2 * size**3 / _best(lambda: multiply(square, square)) / 1e12}


def _best(call: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of a call, the least of some samples of three."""
    jax.block_until_ready(call())
    return min(_clock(call, 3) for _ in range(repeats))
