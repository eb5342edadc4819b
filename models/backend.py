"""What one backend wants and another does not, in one place.

Everything else in the project is the same for all. The choices are made while tracing, for the
backend that JAX computes on, or the one that it is told to compile for; none of them changes a
result by more than rounding.
"""

import contextvars
import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Choices:
    """Sizes and forms that suit a backend.

    Attributes:
      unrolled_layers: networks of up to so many layers run as straight code. XLA's CPU backend
        copies a layer's weights and caches out of their stack each time a scan visits it; the
        others read them in place, and compile one layer faster than many.
      row_scores: attention scores per row of documents that are alive at once, at most.
      logits: logits that are alive at once, at most.
      cache_slots: a branch's cache has a multiple of so many slots, so that kernels can read the
        caches of all branches as one axis where they are.
      decode_divisors: decoding runs with all branches of a document divided by these, in turn, as
        thoughts close. A chip that has to read its weights gains nothing by it, and holds a second
        copy of the caches.
    """

    unrolled_layers: int
    row_scores: int
    logits: int
    cache_slots: int
    decode_divisors: tuple[int, ...]


CPU = Choices(
    unrolled_layers=8,
    row_scores=2**22,
    logits=2**22,
    cache_slots=1,
    decode_divisors=(1, 2, 4),
)
ACCELERATOR = Choices(
    unrolled_layers=0,
    row_scores=2**25,
    logits=2**25,
    cache_slots=16,
    decode_divisors=(1,),
)


_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


@contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Within it, what is traced is meant for "cpu", "tpu" or "cuda", wherever it is traced."""
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def target() -> str:
    """The platform that what is traced now is meant for."""
    return _TARGET.get() or jax.default_backend()


def choices() -> Choices:
    """The choices for that platform."""
    return CPU if target() == "cpu" else ACCELERATOR


_INTERPRETED: contextvars.ContextVar[Any] = contextvars.ContextVar("interpreted", default=None)


@contextmanager
def interpreting(how: Any = True) -> Iterator[None]:
    """Within it, kernels are traced to be interpreted, so that any backend can run them, slowly.

    Args:
      how: True, or the parameters of Pallas' interpreter for TPUs or for Hopper GPUs.
    """
    token = _INTERPRETED.set(how)
    try:
        yield
    finally:
        _INTERPRETED.reset(token)


def interpreted() -> Any:
    """How kernels that are traced now are interpreted; None where they are not."""
    return _INTERPRETED.get()


@dataclasses.dataclass(frozen=True)
class GPU:
    """What kernels ask of a GPU.

    Attributes:
      capability: compute capability, (9, 0) of an H200; (0, 0) of one that is not NVIDIA's.
      cores: multiprocessors.
    """

    capability: tuple[int, int]
    cores: int

    @property
    def shared_memory(self) -> int:
        """Bytes that one block of threads can have, of those that kernels tell apart."""
        return (99 if self.capability in ((8, 6), (8, 9), (12, 0), (12, 1)) else 163) * 1024


H200 = GPU((9, 0), cores=132)


def gpu() -> GPU:
    """The GPU that is traced for: this machine's, or an H200 where there is none."""
    if jax.default_backend() != "gpu":
        return H200
    device = jax.local_devices()[0]
    found = re.fullmatch(r"(\d+)\.(\d+)", device.compute_capability)  # AMD's is a name, "gfx942"
    return GPU((int(found[1]), int(found[2])) if found else (0, 0), device.core_count)
