"""Settings that differ between backends, in one place.

Everything else in the project is the same for all backends. The settings are looked up while
tracing, for the backend that JAX runs on or the one that it compiles for (`compiling_for`). None of
them changes a result by more than rounding. Those of a CPU depend on the processor of this machine.
"""

import contextvars
import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from models.processor import FAST, this_processor


@dataclasses.dataclass(frozen=True)
class Choices:
    """Sizes and program forms that suit a backend.

    Attributes:
      unrolled_layers: networks of at most this many layers are unrolled; deeper ones are scanned.
        In a scan, XLA's CPU backend copies a layer's weights and caches out of their stack; other
        backends read them in place, and compile one layer faster than many.
      unrolled_decoding: while decoding, networks of at most this many layers are unrolled. A
        decoding step reads all weights for a few rows, so that on a CPU the copies of a scan cost
        as much as the products. It compiles faster than the other passes, although once for each
        of `decode_divisors`.
      row_scores: maximum number of attention scores per row of documents in memory at once.
      scan_chunk: maximum number of tokens of which a recurrence computes all pairs at once.
      logits: maximum number of logits of a chunk.
      kept_logits: up to this number of logits are computed at once and kept for the backward pass.
        With more, those of each chunk are computed again, and each chunk adds to the gradient of
        the whole vocabulary.
      cache_slots: the number of slots in a branch cache is a multiple of this, so that kernels can
        read the caches of all branches in place as one axis.
      decode_divisors: as thoughts close, decoding continues with the branches of a document divided
        by each of these in turn. An accelerator is bound by reading its weights and gains nothing,
        and it would need memory for a second copy of the caches.
      float32_products: products of bfloat16 matrices are computed with a float32 result, which is
        then rounded, and their first operand is stored row by row. XLA's CPU backend uses AMX (six
        times the rate) and AVX512-BF16 for products of this form only. The latter has twice the
        rate on AMD's processors, and costs a third on Intel's.
      float32_operands: the operands of a product of bfloat16 matrices whose result is wanted in
        float32 are converted to float32. Where instructions for bfloat16 are missing or slow, XLA's
        CPU backend converts those of all other products anyway, and computes this one at 60% of the
        rate.
      bfloat16_as_bits: bfloat16 arrays that are written in parts are held as integers
        (`models.bits`).
      unit_axes: caches are written with their axes of size 1. XLA's CPU backend copies a whole
        cache to write it with such an axis and to read it without.
      keys_by_dimension: branch caches in float32 hold keys as [head_dim, slots]. XLA's CPU backend
        multiplies a few queries by such keys three times as fast as by keys that are rows.
    """

    unrolled_layers: int
    unrolled_decoding: int
    row_scores: int
    scan_chunk: int
    logits: int
    kept_logits: int
    cache_slots: int
    decode_divisors: tuple[int, ...]
    float32_products: bool
    float32_operands: bool
    bfloat16_as_bits: bool
    unit_axes: bool
    keys_by_dimension: bool


CPU = Choices(
    unrolled_layers=8,
    unrolled_decoding=64,
    row_scores=2**22,
    scan_chunk=64,
    logits=2**25,
    kept_logits=2**27,
    cache_slots=1,
    decode_divisors=(1, 2, 4),
    float32_products=this_processor().bfloat16 in FAST,
    float32_operands=this_processor().bfloat16 not in FAST,
    bfloat16_as_bits=True,
    unit_axes=False,
    keys_by_dimension=True,
)
ACCELERATOR = Choices(
    unrolled_layers=0,
    unrolled_decoding=0,
    row_scores=2**25,
    scan_chunk=128,
    logits=2**25,
    kept_logits=2**25,
    cache_slots=16,
    decode_divisors=(1,),
    float32_products=False,
    float32_operands=False,
    bfloat16_as_bits=False,
    unit_axes=True,
    keys_by_dimension=False,
)


_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


@contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Trace programs for the platform "cpu", "tpu" or "cuda" in this context, on any backend."""
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def target() -> str:
    """Return the platform for which programs are traced now."""
    return _TARGET.get() or jax.default_backend()


def choices() -> Choices:
    """Return the settings for that platform."""
    return CPU if target() == "cpu" else ACCELERATOR


_INTERPRETED: contextvars.ContextVar[Any] = contextvars.ContextVar("interpreted", default=None)


@contextmanager
def interpreting(how: Any = True) -> Iterator[None]:
    """Trace kernels for interpret mode in this context: they run on any backend, slowly.

    Args:
      how: True, or the parameters of Pallas' interpreter for TPUs or for Hopper GPUs.
    """
    token = _INTERPRETED.set(how)
    try:
        yield
    finally:
        _INTERPRETED.reset(token)


def interpreted() -> Any:
    """Return the parameters of interpret mode for kernels traced now; None if it is off."""
    return _INTERPRETED.get()


@dataclasses.dataclass(frozen=True)
class GPU:
    """The properties of a GPU on which kernels depend.

    Attributes:
      capability: compute capability, (9, 0) for an H200; (0, 0) for GPUs of other vendors.
      cores: number of multiprocessors.
    """

    capability: tuple[int, int]
    cores: int

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory of a thread block, rounded down to a size that kernels know."""
        return (99 if self.capability in ((8, 6), (8, 9), (12, 0), (12, 1)) else 163) * 1024


H200 = GPU((9, 0), cores=132)


def gpu() -> GPU:
    """Return the GPU to trace for: that of this machine, or an H200 if it has none."""
    if jax.default_backend() != "gpu":
        return H200
    device = jax.local_devices()[0]
    match = re.fullmatch(r"(\d+)\.(\d+)", device.compute_capability)  # AMD's is a name, "gfx942"
    return GPU((int(match[1]), int(match[2])) if match else (0, 0), device.core_count)
