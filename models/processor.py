"""The processor of this machine: its name and its instructions for bfloat16."""

import dataclasses
import functools
import platform
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux

AMX, AMD_BF16, AVX512_BF16, ARM_BF16 = "AMX", "AMD's AVX512-BF16", "AVX512-BF16", "ARM's BF16"
# Instructions with which XLA multiplies matrices in bfloat16 faster than in float32.
FAST = (AMX, AMD_BF16)
# From words of /proc/cpuinfo to the instructions that they stand for, the fastest first.
_BFLOAT16 = {"amx_bf16": AMX, "avx512_bf16": AVX512_BF16, "bf16": ARM_BF16}


@dataclasses.dataclass(frozen=True)
class Processor:
    """What programs may depend on.

    Attributes:
      name: the model, or the architecture if the model is not known.
      bfloat16: the fastest instructions that multiply numbers in bfloat16: `AMX`, `AMD_BF16`,
        `AVX512_BF16` (of other vendors) or `ARM_BF16`; "" if there are none, None if that is not
        known.
    """

    name: str
    bfloat16: str | None


@functools.cache
def this_processor() -> Processor:
    """Return the processor of this machine; its instructions are known on Linux only."""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            return parse(lines)
    except OSError:
        return parse(())


def parse(lines: Iterable[str]) -> Processor:
    """Return the processor that the lines of /proc/cpuinfo describe; the first core's are read."""
    values: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            break
        name, _, value = line.partition(":")
        values[name.strip()] = value.strip()
    features = values.get("flags", values.get("Features"))  # on x86, on ARM
    name = values.get("model name") or platform.machine() or "unknown"
    if features is None:
        return Processor(name, None)
    known = features.split()
    bfloat16 = next((how for word, how in _BFLOAT16.items() if word in known), "")
    if bfloat16 == AVX512_BF16 and values.get("vendor_id") == "AuthenticAMD":
        bfloat16 = AMD_BF16
    return Processor(name, bfloat16)
