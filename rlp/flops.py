"""FLOPs of a step, counted from the shapes that the program runs (a multiply-add is 2).

Counted is every matmul that is executed: linear maps and logits of all slots, padding and dead ones
included, and attention scores over all keys offered, masked ones included, because the arithmetic
is done. A backward pass costs twice its forward, plus what it computes again. Elementwise work,
norms and the optimizer are left out: a few per cent of a small model, next to nothing of a large.
"""

import dataclasses

from models.config import ModelConfig
from rlp.scoring import logit_chunks
from rlp.step import RLPSettings


@dataclasses.dataclass(frozen=True)
class Work:
    """Matmul work of a forward pass."""

    tokens: int = 0  # through all blocks
    pairs: int = 0  # (query, key) pairs offered to attention, per head
    logits: int = 0  # tokens whose logits are computed

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens, self.pairs + other.pairs, self.logits + other.logits
        )


def forward_flops(config: ModelConfig, work: Work) -> int:
    """FLOPs of a forward pass."""
    return (
        work.tokens * linear_flops(config)
        + work.pairs * attention_flops(config)
        + work.logits * logit_flops(config)
    )


def training_flops(config: ModelConfig, work: Work) -> int:
    """FLOPs of a forward and backward pass, with what the backward computes again."""
    again = 0
    if logit_chunks(work.logits, config.vocab_size) > 1:
        again += work.logits * logit_flops(config)
    if config.remat in ("block", "dots"):
        again += work.pairs * attention_flops(config)
    if config.remat == "block":  # all but the last matmul, whose output no gradient needs
        down = 2 * config.num_layers * config.ffn_size * config.hidden_size
        again += work.tokens * (linear_flops(config) - down)
    return 3 * forward_flops(config, work) + again


def linear_flops(config: ModelConfig) -> int:
    """FLOPs of one token through the weights of all blocks."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    weights = config.hidden_size * (2 * q + 2 * kv + 3 * config.ffn_size)
    return 2 * config.num_layers * weights


def attention_flops(config: ModelConfig) -> int:
    """FLOPs of one (query, key) pair in all heads of all blocks: score and mix."""
    return 4 * config.num_layers * config.num_heads * config.head_dim


def logit_flops(config: ModelConfig) -> int:
    """FLOPs of the logits of one token."""
    return 2 * config.hidden_size * config.vocab_size


def next_token_flops(config: ModelConfig, rows: int, length: int) -> int:
    """FLOPs of a next-token step on [rows, length] tokens."""
    work = Work(rows * length, rows * length * length, rows * (length - 1))
    return training_flops(config, work)


def rlp_flops(
    config: ModelConfig, settings: RLPSettings, batch: int, length: int, decode_steps: int
) -> int:
    """FLOPs of an RLP step: forks, rollout, evidence and updates.

    Args:
      batch: B.
      length: T, without the thinking prompt.
      decode_steps: tokens decoded per branch in this step; at most L.
    """
    s = settings
    trunk = length + len(s.prompt)
    branches = batch * s.forks_per_document * s.group_size
    targets = batch * s.forks_per_document * s.horizon
    keys = trunk + s.thought_length + s.horizon + 1  # offered to a token on a branch

    prefill = Work(batch * trunk, batch * trunk * trunk)
    documents = Work(batch * length, batch * length * length)
    decoded, scored = branches * decode_steps, branches * (s.horizon + 1)
    forward = prefill + Work(decoded, decoded * keys, decoded)
    forward += Work(scored, scored * keys, branches * s.horizon)
    forward += Work(logits=targets) + (documents if s.prompt else Work())  # no-think, policy
    if s.baseline != "none":
        forward += documents + Work(logits=targets)
    if s.positions in ("loss", "entropy"):
        forward += documents + Work(logits=batch * (length - 1))

    acted = branches * s.thought_length
    update = prefill + Work(acted, acted * (trunk + s.thought_length), acted)
    updates = s.updates_per_rollout * training_flops(config, update)
    return forward_flops(config, forward) + updates
