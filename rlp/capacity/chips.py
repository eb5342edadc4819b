"""Chips and topologies, by the names of `--topology`. Does not import JAX."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping

from rlp.runtime.errors import UserError

GIB = 2**30
GPUS_OF_A_NODE = 8  # connected by NVLink
GPU_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's memory that JAX allocates


@dataclasses.dataclass(frozen=True)
class Chip:
    """Memory and peak speeds of an accelerator.

    Attributes:
      name: as in `--topology`.
      platform: "tpu" or "cuda".
      memory: bytes that a program can use: for a TPU, the limit of the compiler, a little below the
        capacity; for a GPU, the size that the driver reports.
      flops: FLOP/s, bfloat16, dense.
      bandwidth: bytes/s of HBM.
      link: bytes/s that it can send to its neighbors (ICI, NVLink), over all links.
      network: bytes/s that it can send to other nodes; None if all chips are connected by `link`.
      dimensions: number of sizes of a topology.
      kinds: names that JAX gives to its devices (`jax.Device.device_kind`).
    """

    name: str
    platform: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    network: float | None
    dimensions: int
    kinds: tuple[str, ...]

    def usable(self, environment: Mapping[str, str] = os.environ) -> float:
        """Return the bytes that JAX can allocate.

        They are all of a TPU's memory, and of a GPU's memory the share
        XLA_PYTHON_CLIENT_MEM_FRACTION, by default 0.75.

        Raises:
          UserError: If the share is not a number in (0, 1].
        """
        if self.platform != "cuda":
            return self.memory
        text = environment.get(GPU_SHARE, "0.75")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UserError(f"{GPU_SHARE}={text!r} must be above 0 and at most 1, such as 0.75")
        return share * self.memory


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, links in one direction. H200: NVIDIA's data
# sheets of the H200 SXM (4.8 TB/s, 989 TFLOP/s without sparsity, NVLink 900 GB/s in both
# directions) and of the DGX H200 (one 400 Gb/s adapter per GPU).
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "tpu", 30.75 * GIB, 275e12, 1228e9, 300e9, None, 3, ("TPU v4",)),
        Chip("v5e", "tpu", 15.75 * GIB, 197e12, 819e9, 200e9, None, 2, ("TPU v5 lite", "TPU v5e")),
        Chip("v5p", "tpu", 95.73 * GIB, 459e12, 2765e9, 600e9, None, 3, ("TPU v5", "TPU v5p")),
        Chip("v6e", "tpu", 31.24 * GIB, 918e12, 1640e9, 448e9, None, 2, ("TPU v6 lite", "TPU v6e")),
        Chip("h200", "cuda", 140.4 * GIB, 989e12, 4800e9, 450e9, 50e9, 2, ("NVIDIA H200",)),
    )
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Return the FLOP/s of a device at its peak; None if it is not known.

    Args:
      device_kind: as `jax.Device.device_kind` gives it.
      dtype: of the matmuls; a peak is known only for "bfloat16".
    """
    if dtype != "bfloat16":
        return None
    return next((chip.flops for chip in CHIPS.values() if device_kind in chip.kinds), None)


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of chips and their arrangement: the torus of TPUs, or nodes × GPUs per node."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name as in `--topology`."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def devices(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)


def parse_topology(text: str) -> Topology:
    """Parse a topology such as "v5p:4x4x4" or "h200:2x8".

    Raises:
      UserError: If the chip is unknown, or does not have such a topology.
    """
    name, _, sizes = text.partition(":")
    if name not in CHIPS:
        known = ", ".join(CHIPS)
        raise UserError(f"--topology={text!r}: unknown chip {name!r}; use one of {known}")
    chip = CHIPS[name]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes) or sizes.count("x") + 1 != chip.dimensions:
        example = "2x8 (nodes × GPUs per node)" if chip.platform == "cuda" else "4x4x4"
        if chip.platform == "tpu" and chip.dimensions == 2:
            example = "4x4"
        raise UserError(
            f"--topology={text!r}: {name} needs {chip.dimensions} sizes, such as {name}:{example}"
        )
    shape = tuple(map(int, sizes.split("x")))
    if chip.platform == "cuda" and shape[1] > GPUS_OF_A_NODE:
        raise UserError(
            f"--topology={text!r}: a node has at most {GPUS_OF_A_NODE} GPUs; use NODESxGPUS"
        )
    return Topology(chip, shape)
