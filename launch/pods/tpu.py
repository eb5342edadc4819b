"""TPU slices by name, such as "v5p:4x4x4", and their names in GKE and gcloud."""

import math
import re
from dataclasses import dataclass

from absl import flags

from rlp.runtime.errors import UserError

TPU = flags.DEFINE_string(
    "tpu", "", "slice as generation:shape, such as v5e:4x4, v5p:4x4x4 or v6e:8x8"
)
SPOT = flags.DEFINE_bool("spot", True, "use spot capacity, which is cheaper and can be preempted")


@dataclass(frozen=True)
class _Generation:
    """Names and shapes of a generation of chips.

    Attributes:
      gke: value of the node label cloud.google.com/gke-tpu-accelerator.
      accelerator: prefix of the accelerator type of gcloud.
      counted: what that type counts per chip: 1 chip or 2 cores.
      version: runtime of a TPU VM.
      axes: number of axes of its shapes.
      most_on_a_host: chips of the largest slice with one host; larger slices have 4 per host.
    """

    gke: str
    accelerator: str
    counted: int
    version: str
    axes: int
    most_on_a_host: int


GENERATIONS = {
    "v4": _Generation("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base", 3, 4),
    "v5e": _Generation("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite", 2, 8),
    "v5p": _Generation("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", 3, 4),
    "v6e": _Generation("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e", 2, 8),
}


@dataclass(frozen=True)
class Slice:
    """A TPU slice.

    Attributes:
      generation: the generation of its chips.
      topology: its shape, such as "4x4x4".
      chips: total number of chips.
      chips_per_host: number of chips per host.
    """

    generation: _Generation
    topology: str
    chips: int
    chips_per_host: int

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return self.chips // self.chips_per_host

    @property
    def accelerator_type(self) -> str:
        """The accelerator type of gcloud, such as "v5p-128"."""
        return f"{self.generation.accelerator}-{self.chips * self.generation.counted}"


def parse(text: str) -> Slice:
    """Parse a slice such as "v5p:4x4x4".

    Raises:
      UserError: The generation is unknown, or it does not have this shape.
    """
    name, _, topology = text.partition(":")
    generation = GENERATIONS.get(name)
    if generation is None or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", topology):
        known = ", ".join(GENERATIONS)
        raise UserError(
            f"--tpu={text!r} is not generation:shape, such as v5p:4x4x4; use one of {known}"
        )
    sides = [int(side) for side in topology.split("x")]
    if len(sides) != generation.axes:
        raise UserError(f"--tpu={text!r}: a shape of {name} has {generation.axes} axes")
    chips = math.prod(sides)
    per_host = chips if chips <= generation.most_on_a_host else 4
    if chips % per_host:
        raise UserError(f"--tpu={text!r}: {chips} chips are not a multiple of {per_host} per host")
    return Slice(generation, topology, chips, per_host)
