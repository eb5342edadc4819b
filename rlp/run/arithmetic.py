"""What a run on CPUs should know about the processor: whether bfloat16 is the faster dtype."""

import logging

from models.backend import choices, target
from models.processor import AMD_BF16, AMX, ARM_BF16, AVX512_BF16, this_processor

LOGGER = logging.getLogger(__name__)

_FASTER = "so bfloat16 is faster than float32"
_NO_FASTER = "so bfloat16 is no faster than float32"
_OUTLOOK = {
    AMX: f"has {AMX}, {_FASTER}",
    AMD_BF16: f"has {AMD_BF16}, {_FASTER}",
    AVX512_BF16: f"has {AVX512_BF16} but not AMX, {_NO_FASTER}",
    "": f"has no instructions for bfloat16, {_NO_FASTER}",
    ARM_BF16: f"has {ARM_BF16}; which dtype is faster there has not been measured",
    None: "has unknown instructions; float32 is faster than bfloat16 unless some are for bfloat16",
}


def log(dtype: str) -> None:
    """Log which dtype is faster on this processor, as a warning if the run's is not.

    Nothing is logged if the run does not compute on a CPU.

    Args:
      dtype: The value of `model.compute_dtype`.
    """
    if target() != "cpu":
        return
    processor = this_processor()
    outlook = _OUTLOOK[processor.bfloat16]
    line = f"the processor ({processor.name}) {outlook}"
    if dtype == "bfloat16" and processor.bfloat16 in ("", AVX512_BF16):
        LOGGER.warning("%s; set model.compute_dtype=float32", line)
    else:
        LOGGER.info("%s", line)


def facts(dtype: str) -> dict[str, bool]:
    """Return what the program of a run depends on and all its processes must thus share.

    Args:
      dtype: The value of `model.compute_dtype`.
    """
    if target() != "cpu" or dtype != "bfloat16":
        return {}
    return {"the use of the processor's instructions for bfloat16": choices().float32_products}
