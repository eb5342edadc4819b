"""The workload: the sizes of one RLP step and its synthetic documents. Does not import jax.

Other implementations draw the same documents from the same seed.
"""

import dataclasses
import random

from benchmarks import fields
from benchmarks.network import FIRST_WORD, NetworkSizes
from rlp.runtime.errors import UserError

POSITION_MODES = ("spread", "last")


@dataclasses.dataclass(frozen=True)
class Workload(NetworkSizes):
    """Sizes of the workload.

    Raises:
      UserError: If a value is invalid; the message names the flag.
    """

    docs: int = fields.flag(4, "documents per step")
    positions: int = fields.flag(1, "K: forks per document")
    pos_mode: str = fields.flag(
        "spread",
        "spread: fork k (1 to K) at prefix*k/K; last: the last K positions up to prefix",
        choices=POSITION_MODES,
    )
    group: int = fields.flag(16, "G: thoughts per fork", least=2)
    prefix: int = fields.flag(256, "document tokens before the last fork")
    thought: int = fields.flag(64, "L: tokens of a thought")
    horizon: int = fields.flag(8, "H: document tokens scored after the thought")
    temperature: float = fields.flag(0.7, "temperature of the sampler", least=0)
    ema: float = fields.flag(0.999, "decay of the baseline's parameters", least=0, most=1)
    max_branches_in_flight: int = fields.flag(
        0, "rlp.max_branches_in_flight; 0 = all at once", least=0, own=True
    )
    micro_batch: int = fields.flag(0, "rlp.update_micro_batch; 0 = all at once", least=0, own=True)

    def __post_init__(self):
        super().__post_init__()
        if self.prefix < self.positions:
            raise UserError(
                f"--positions={self.positions} do not fit into --prefix={self.prefix} tokens; "
                "raise --prefix"
            )
        if 0 < self.max_branches_in_flight < self.group:
            raise UserError(
                f"--max_branches_in_flight={self.max_branches_in_flight} is less than "
                f"--group={self.group}; the thoughts of a group are sampled together"
            )
        if not self.temperature:
            raise UserError(
                "--temperature=0.0 is greedy, but the benchmark measures sampling; set it above 0"
            )

    @property
    def length(self) -> int:
        """T, tokens of a document."""
        return self.prefix + self.horizon

    @property
    def thoughts(self) -> int:
        """Number of thoughts of a step."""
        return self.docs * self.positions * self.group

    def forks(self) -> list[int]:
        """Return the positions of the forks of every document, ascending."""
        steps = range(1, self.positions + 1)
        if self.pos_mode == "spread":
            return [self.prefix * k // self.positions for k in steps]
        return [self.prefix - self.positions + k for k in steps]

    def documents(self, count: int) -> list[list[int]]:
        """Return the token ids of the first `count` documents."""
        draw = random.Random(self.seed)
        return [
            [draw.randrange(FIRST_WORD, self.vocab) for _ in range(self.length)]
            for _ in range(count)
        ]
