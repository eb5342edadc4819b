"""The workload of generation: prompts of random tokens. Does not import jax."""

import dataclasses

from benchmarks import fields
from benchmarks.network import NetworkSizes
from rlp.runtime.errors import UserError

ENGINES = ("rollout", "stream", "requests")


@dataclasses.dataclass(frozen=True)
class Workload(NetworkSizes):
    """Sizes of the workload; a step generates all rows.

    Raises:
      UserError: If a value is invalid; the message names the flag.
    """

    rows: int = fields.flag(16, "responses that are generated at once")
    group: int = fields.flag(1, "responses to each prompt")
    prompt: int = fields.flag(32, "tokens of a prompt", least=2)
    length: int = fields.flag(256, "tokens of a response; none ends earlier", least=2)
    temperature: float = fields.flag(0.7, "temperature of the sampler; 0 = greedy", least=0)
    engine: str = fields.flag(
        "rollout",
        "rollout: that of training, evaluation and launch.sample --think; "
        "stream: that of launch.sample without --think, for one row; "
        "requests: that of the evaluation on benchmarks",
        choices=ENGINES,
        own=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.rows % self.group:
            raise UserError(
                f"--rows={self.rows} is not a multiple of --group={self.group}; change one"
            )
        if self.engine == "stream" and self.rows > 1:
            raise UserError(
                f"--engine=stream generates one row, not --rows={self.rows}; change one"
            )

    @property
    def prompts(self) -> int:
        """Number of different prompts."""
        return self.rows // self.group
