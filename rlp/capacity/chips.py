"""Chips and topologies, by the names that `--topology` takes. Knows no jax."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping

from rlp.runtime.errors import UserError

GIB = 2**30
GPUS_OF_A_NODE = 8  # share one NVLink switch
GPU_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's memory that JAX takes


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one accelerator can hold, and do in a second.

    Attributes:
      name: as in a topology.
      platform: "tpu" or "cuda".
      memory: bytes that a program can use: of a TPU, the compiler's own limit, which is a little
        below the capacity; of a GPU, what the driver shows.
      flops: bfloat16, dense.
      bandwidth: of HBM, bytes.
      link: bytes that it can send to its neighbours, over all links together.
      network: bytes that it can send beyond its node; None where all chips are neighbours.
      dimensions: of a topology.
      kinds: what JAX calls a device of this chip (`jax.Device.device_kind`).
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
        """Bytes that JAX takes of the memory: all of a TPU's, of a GPU's the share that
        XLA_PYTHON_CLIENT_MEM_FRACTION names, three quarters without it.

        Raises:
          UserError: that is no share.
        """
        if self.platform != "cuda":
            return self.memory
        text = environment.get(GPU_SHARE, "0.75")
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UserError(f"{GPU_SHARE}={text!r} is no share of the memory; use 0.75, say")
        return share * self.memory


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, links one way. H200: NVIDIA's data sheet of
# the H200 SXM (4.8 TB/s, 989 TFLOP/s without sparsity, NVLink 900 GB/s both ways) and of the
# DGX H200 (one 400 Gb/s adapter for each GPU).
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
    """Chips and how they are arranged: the torus of TPUs, or nodes and the GPUs of each."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As it was asked for."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def devices(self) -> int:
        """How many chips."""
        return math.prod(self.shape)


def parse_topology(text: str) -> Topology:
    """The topology that a text such as "v5p:4x4x4" or "h200:2x8" names.

    Raises:
      UserError: there is no such chip, or it is not arranged like that.
    """
    name, _, sizes = text.partition(":")
    if name not in CHIPS:
        known = ", ".join(CHIPS)
        raise UserError(f"--topology={text!r}: no chip {name!r}; use one of {known}")
    chip = CHIPS[name]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes) or sizes.count("x") + 1 != chip.dimensions:
        example = "2x8 (nodes, GPUs of each)" if chip.platform == "cuda" else "4x4x4"
        if chip.platform == "tpu" and chip.dimensions == 2:
            example = "4x4"
        raise UserError(
            f"--topology={text!r}: {name} takes {chip.dimensions} sizes: {name}:{example}"
        )
    shape = tuple(map(int, sizes.split("x")))
    if chip.platform == "cuda" and shape[1] > GPUS_OF_A_NODE:
        raise UserError(
            f"--topology={text!r}: a node has {GPUS_OF_A_NODE} GPUs at most; write NODESxGPUS"
        )
    return Topology(chip, shape)
