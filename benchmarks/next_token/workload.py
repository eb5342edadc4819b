"""The workload of next-token training: rows of random tokens. Does not import jax."""

import dataclasses

from benchmarks import fields
from benchmarks.network import NetworkSizes


@dataclasses.dataclass(frozen=True)
class Workload(NetworkSizes):
    """Sizes of the workload.

    Raises:
      UserError: If a value is invalid; the message names the flag.
    """

    rows: int = fields.flag(8, "rows per step")
    length: int = fields.flag(256, "tokens of a row", least=2)
