"""Sizes of the network and of the timing, for all benchmarks of training. Does not import jax.

Other implementations accept the same flags, written with dashes (--kv-heads).
"""

import dataclasses
import sys

from benchmarks import fields
from rlp.runtime.errors import UserError

FIRST_WORD = 8  # lower ids are special or unused, so that documents contain words only
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "block", "dots")
LETTERS = "GDM*-"


@dataclasses.dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a network and settings of a timed run; each field is a flag.

    Fields with `own` in their metadata are not passed to other implementations.

    Raises:
      UserError: If a value is invalid; the message names the flag.
    """

    hidden: int = fields.flag(256, "width of the residual stream")
    layers: int = fields.flag(4, "transformer blocks")
    heads: int = fields.flag(4, "query heads")
    kv_heads: int = fields.flag(2, "key and value heads")
    head_dim: int = fields.flag(64, "width of a head")
    ffn: int = fields.flag(0, "inner width of the feed-forward; 0 = 3 * hidden", least=0)
    vocab: int = fields.flag(4096, "rows of the embedding", least=FIRST_WORD + 1)
    threads: int = fields.flag(1, "CPUs to use")
    warmup: int = fields.flag(2, "untimed first steps, in which programs are compiled")
    steps: int = fields.flag(3, "timed steps; results are their medians")
    seed: int = fields.flag(0, "seed of all random numbers", least=0)
    lr: float = fields.flag(1e-6, "learning rate of AdamW", least=0)
    dtype: str = fields.flag("float32", "dtype of activations and matmuls", choices=DTYPES)
    remat: str = fields.flag("none", "what the backward pass recomputes", choices=REMAT, own=True)
    pattern: str = fields.flag(
        "G",
        "model.layer_pattern: G, D (DeltaNet), or M (Mamba-2), * (attention) and - (feed-forward)",
        own=True,
    )

    def __post_init__(self):
        fields.check_ranges(self)
        if self.heads % self.kv_heads:
            raise UserError(
                f"--heads={self.heads} is not a multiple of --kv_heads={self.kv_heads}; change one"
            )
        if self.head_dim % 2:
            raise UserError(f"--head_dim={self.head_dim} is odd; RoPE needs an even number")
        if not self.pattern or set(self.pattern) - set(LETTERS):
            raise UserError(f"--pattern={self.pattern!r}; use letters of {LETTERS}")
        if set(self.pattern) & {"M", "D"} and self.recurrent_heads % self.kv_heads:
            raise UserError(
                f"--kv_heads={self.kv_heads} does not divide the {self.recurrent_heads} heads of "
                "Mamba-2 or DeltaNet, 2 * hidden / head_dim; change one"
            )

    @property
    def ffn_size(self) -> int:
        """Inner width of the feed-forward."""
        return self.ffn or 3 * self.hidden

    @property
    def recurrent_heads(self) -> int:
        """Heads of Mamba-2 or DeltaNet, together twice as wide as the residual stream."""
        return 2 * self.hidden // self.head_dim

    def command(self) -> list[str]:
        """Return the command line that times this project."""
        package = type(self).__module__.rpartition(".")[0]
        return [sys.executable, "-m", package, *fields.arguments(self)]

    def peer_arguments(self) -> list[str]:
        """Return the flags for another implementation: with dashes, and without `own` fields."""
        shared = [field.name for field in dataclasses.fields(self) if "own" not in field.metadata]
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in shared]
