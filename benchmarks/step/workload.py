"""The workload: the sizes of one RLP step and its synthetic documents. Does not import jax.

Other implementations accept the same flags, written with dashes (--kv-heads), and draw the same
documents from the same seed.
"""

import argparse
import dataclasses
import random

from benchmarks.step import fields
from rlp.runtime.errors import UserError

FIRST_WORD = 8  # lower ids are special or unused, so that documents contain words only
POSITION_MODES = ("spread", "last")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "block", "dots")


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of the workload; each field is a flag.

    Fields with `own` in their metadata are not passed to other implementations.

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
    hidden: int = fields.flag(256, "width of the residual stream")
    layers: int = fields.flag(4, "transformer blocks")
    heads: int = fields.flag(4, "query heads")
    kv_heads: int = fields.flag(2, "key and value heads")
    head_dim: int = fields.flag(64, "width of a head")
    ffn: int = fields.flag(0, "inner width of the feed-forward; 0 = 3 * hidden", least=0)
    vocab: int = fields.flag(4096, "rows of the embedding", least=FIRST_WORD + 1)
    threads: int = fields.flag(1, "CPUs to use")
    warmup: int = fields.flag(2, "steps before the timed ones, which compile")
    steps: int = fields.flag(3, "timed steps; results are their medians")
    seed: int = fields.flag(0, "seed of documents, parameters and thoughts", least=0)
    lr: float = fields.flag(1e-6, "learning rate of AdamW", least=0)
    temperature: float = fields.flag(0.7, "temperature of the sampler", least=0)
    ema: float = fields.flag(0.999, "decay of the baseline's parameters", least=0, most=1)
    dtype: str = fields.flag("float32", "dtype of activations and matmuls", choices=DTYPES)
    remat: str = fields.flag("none", "what the backward pass recomputes", choices=REMAT, own=True)
    max_branches_in_flight: int = fields.flag(
        0, "rlp.max_branches_in_flight; 0 = all at once", least=0, own=True
    )
    micro_batch: int = fields.flag(0, "rlp.update_micro_batch; 0 = all at once", least=0, own=True)

    def __post_init__(self):
        fields.check_ranges(self)
        if self.heads % self.kv_heads:
            raise UserError(
                f"--heads={self.heads} is not a multiple of --kv_heads={self.kv_heads}; change one"
            )
        if self.head_dim % 2:
            raise UserError(f"--head_dim={self.head_dim} is odd; RoPE needs an even number")
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
    def ffn_size(self) -> int:
        """Inner width of the feed-forward."""
        return self.ffn or 3 * self.hidden

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

    def arguments(self) -> list[str]:
        """Return the flags that set this workload."""
        return fields.arguments(self)

    def peer_arguments(self) -> list[str]:
        """Return the flags for another implementation: with dashes, and without `own` fields."""
        shared = [field.name for field in dataclasses.fields(self) if "own" not in field.metadata]
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in shared]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Define a flag for every field of a workload."""
    fields.add_flags(parser, Workload)


def from_flags(flags: argparse.Namespace) -> Workload:
    """Return the workload of parsed flags."""
    return Workload(**fields.values(flags, Workload))
