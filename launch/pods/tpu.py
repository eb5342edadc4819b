"""TPU slices by name, "v5p:4x4x4", and what GKE and gcloud call them."""

import math
import re
from dataclasses import dataclass

from absl import flags

from rlp.runtime.errors import UserError

TPU = flags.DEFINE_string(
    "tpu", "", "the slice, by generation and shape: v5e:4x4, v5p:4x4x4, v6e:8x8"
)
SPOT = flags.DEFINE_bool("spot", True, "take capacity that is cheaper and can be taken back")


@dataclass(frozen=True)
class _Generation:
    """How a generation of chips is called and cut.

    Attributes:
      gke: value of the node label cloud.google.com/gke-tpu-accelerator.
      accelerator: start of gcloud's accelerator type.
      counted: units a chip in that type: cores or chips.
      version: runtime of a TPU VM.
      axes: of its shapes.
      most_on_a_host: chips of the largest slice that is one host; larger ones have 4 a host.
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
      generation: of its chips.
      topology: its shape, such as "4x4x4".
      chips: in all.
      chips_per_host: chips of each host.
    """

    generation: _Generation
    topology: str
    chips: int
    chips_per_host: int

    @property
    def hosts(self) -> int:
        """Hosts of the slice."""
        return self.chips // self.chips_per_host

    @property
    def accelerator_type(self) -> str:
        """As gcloud has it: "v5p-128"."""
        return f"{self.generation.accelerator}-{self.chips * self.generation.counted}"


def parse(text: str) -> Slice:
    """The slice that "v5p:4x4x4" names.

    Raises:
      UserError: there is no such generation, or it has no such shapes.
    """
    name, _, topology = text.partition(":")
    generation = GENERATIONS.get(name)
    if generation is None or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", topology):
        known = ", ".join(GENERATIONS)
        raise UserError(f"--tpu={text!r}: write generation:shape, as v5p:4x4x4; there are {known}")
    sides = [int(side) for side in topology.split("x")]
    if len(sides) != generation.axes:
        raise UserError(f"--tpu={text!r}: a shape of {name} has {generation.axes} sides")
    chips = math.prod(sides)
    per_host = chips if chips <= generation.most_on_a_host else 4
    if chips % per_host:
        raise UserError(f"--tpu={text!r}: {chips} chips do not fill hosts of {per_host}")
    return Slice(generation, topology, chips, per_host)
