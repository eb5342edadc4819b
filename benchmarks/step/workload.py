"""The workload: the sizes of one RLP step and its made-up documents. Needs no jax.

Other implementations take the same flags, written with dashes (--kv-heads), and make the same
documents of the same seed.
"""

import argparse
import dataclasses
import random

from benchmarks.step import fields
from rlp.runtime.errors import UserError

FIRST_WORD = 8  # ids below are special or left out, so that documents hold words only
POSITION_MODES = ("spread", "last")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "block", "dots")


@dataclasses.dataclass(frozen=True)
class Workload:
    """One field per flag; those with `own` in their metadata mean nothing to others.

    Raises:
      UserError: for values that no step can have, naming the flag.
    """

    docs: int = fields.flag(4, "documents a step")
    positions: int = fields.flag(1, "K: forks per document")
    pos_mode: str = fields.flag(
        "spread",
        "spread: fork k (1 to K) at prefix*k/K; last: the last K places up to prefix",
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
    warmup: int = fields.flag(2, "steps before the clock starts; they compile")
    steps: int = fields.flag(3, "steps timed; figures are their medians")
    seed: int = fields.flag(0, "of documents, parameters and thoughts", least=0)
    lr: float = fields.flag(1e-6, "learning rate of AdamW", least=0)
    temperature: float = fields.flag(0.7, "of the sampler", least=0)
    ema: float = fields.flag(0.999, "decay of the baseline's parameters", least=0, most=1)
    dtype: str = fields.flag("float32", "of activations and matmuls", choices=DTYPES)
    remat: str = fields.flag(
        "none", "what the backward pass computes again", choices=REMAT, own=True
    )
    max_branches_in_flight: int = fields.flag(
        0, "rlp.max_branches_in_flight; 0 = all at once", least=0, own=True
    )
    micro_batch: int = fields.flag(0, "rlp.update_micro_batch; 0 = all at once", least=0, own=True)

    def __post_init__(self):
        fields.check_ranges(self)
        if self.heads % self.kv_heads:
            raise UserError(f"--heads={self.heads} is no multiple of --kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise UserError(f"--head_dim={self.head_dim} is odd; RoPE turns pairs")
        if self.prefix < self.positions:
            raise UserError(
                f"--positions={self.positions} do not fit into --prefix={self.prefix} tokens"
            )
        if 0 < self.max_branches_in_flight < self.group:
            raise UserError(
                f"--max_branches_in_flight={self.max_branches_in_flight} is less than a "
                f"--group={self.group}, whose thoughts stay together"
            )
        if not self.temperature:
            raise UserError("--temperature=0.0 takes the likeliest token; the sampler is measured")

    @property
    def ffn_size(self) -> int:
        """Inner width of the feed-forward."""
        return self.ffn or 3 * self.hidden

    @property
    def length(self) -> int:
        """T: tokens of a document."""
        return self.prefix + self.horizon

    @property
    def thoughts(self) -> int:
        """Thoughts of a step."""
        return self.docs * self.positions * self.group

    def forks(self) -> list[int]:
        """Places where the thoughts of every document branch off, ascending."""
        steps = range(1, self.positions + 1)
        if self.pos_mode == "spread":
            return [self.prefix * k // self.positions for k in steps]
        return [self.prefix - self.positions + k for k in steps]

    def documents(self, count: int) -> list[list[int]]:
        """Token ids of the first `count` documents."""
        draw = random.Random(self.seed)
        return [
            [draw.randrange(FIRST_WORD, self.vocab) for _ in range(self.length)]
            for _ in range(count)
        ]

    def arguments(self) -> list[str]:
        """The flags that make this workload."""
        return fields.arguments(self)

    def peer_arguments(self) -> list[str]:
        """The same for another implementation: dashes, and nothing that only the product has."""
        shared = [field.name for field in dataclasses.fields(self) if "own" not in field.metadata]
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in shared]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Defines a flag for every field of a workload."""
    fields.add_flags(parser, Workload)


def from_flags(flags: argparse.Namespace) -> Workload:
    """The workload that parsed flags ask for."""
    return Workload(**fields.values(flags, Workload))
