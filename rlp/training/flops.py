"""FLOPs of a step, counted from the shapes that the program runs (a multiply-add is 2).

Counted is every matmul that is executed: linear maps and logits of all slots, padding and dead ones
included, and attention scores over all keys offered, masked ones included, because the arithmetic
is done. Attention kernels skip what is not visible; as forks are not known here, a branch counts as
if it saw its whole trunk, which is at most twice too much. It is what one device would do: the mesh
changes no figure. A backward pass costs twice its forward, plus what it computes again. The
optimizer's elementwise work is counted for each parameter (`rlp/engine/optimizer.py`); that of the
networks, norms and softmax, is left out: a few per cent of a small model, next to nothing of a
large.

A step's FLOPs are counted for every stage of `rlp/engine/stages.py`, in the parts of
`rlp/training/cost.py`.
"""

import dataclasses
from collections.abc import Callable

from models.attention import chosen
from models.attention_kernels import PLATFORMS
from models.attention_xla import query_runs
from models.backend import choices
from models.config import ModelConfig
from models.transformer import count_parameters
from rlp.engine.branches import Vocabulary
from rlp.engine.forks import SCORED
from rlp.engine.scoring import logit_chunks
from rlp.engine.stages import NEXT_TOKEN, RLP
from rlp.engine.step import RLPSettings
from rlp.objectives.registry import find

Flops = dict[str, dict[str, int]]  # of a step: stage of `rlp.engine.stages` to part to FLOPs
EMA_FLOPS = 3  # of a parameter: tau phi + (1 - tau) theta


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
    # Scores; the kernels compute them twice again, and once the products with the values.
    products = 3 if by_kernels(config) else 1
    again = products * work.pairs * attention_flops(config) // 2
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


def by_kernels(config: ModelConfig) -> bool:
    """Whether attention skips blocks in which nothing is visible, and keeps its scores on chip."""
    return chosen(config.attention, config.head_dim, config.dtype) in PLATFORMS


def trunk_pairs(config: ModelConfig, length: int) -> int:
    """(query, key) pairs that attention computes for a row of `length` trunk tokens."""
    if by_kernels(config):
        return length * (length + 1) // 2
    return sum((stop - start) * stop for start, stop in query_runs(length))


def branch_pairs(config: ModelConfig, tokens: int, trunk: int, own: int, slots: range) -> int:
    """(query, key) pairs that attention computes for some tokens on branches.

    Args:
      tokens: of all branches, as many in each of `slots`.
      trunk: keys of a trunk.
      own: keys of a branch.
      slots: where the tokens stand.
    """
    if by_kernels(config):
        return tokens * (2 * trunk + slots.start + 1 + slots.stop) // 2
    return tokens * (trunk + own)


def by_part(flops: Flops) -> dict[str, int]:
    """FLOPs of the parts of a step, of all its stages."""
    found: dict[str, int] = {}
    for parts in flops.values():
        for part, count in parts.items():
            found[part] = found.get(part, 0) + count
    return found


def by_phase(flops: Flops) -> dict[str, int]:
    """FLOPs of the phases of a step, all parts of all their stages together."""
    phases = {stage.name: stage.phase for stage in (*NEXT_TOKEN, *RLP)}
    found: dict[str, int] = {}
    for stage, parts in flops.items():
        found[phases[stage]] = found.get(phases[stage], 0) + sum(parts.values())
    return found


def next_token_flops(config: ModelConfig, optimizer: int, rows: int, length: int) -> Flops:
    """FLOPs of a next-token step on [rows, length] tokens; `optimizer` as of `rlp_flops`."""
    pairs = rows * trunk_pairs(config, length)
    work = Work(rows * length, pairs, rows * (length - 1))
    return {"update": {"update": training_flops(config, work), "optimizer": optimizer}}


def rlp_flops(
    config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    optimizer: int,
    batch: int,
    length: int,
    decoded: int,
) -> Flops:
    """FLOPs of an RLP step.

    Args:
      vocabulary: for the lengths of the tags.
      optimizer: FLOPs of one update, from `Optimizer.flops`.
      batch: B.
      length: T, without the thinking prompt.
      decoded: tokens decoded in this step's rollout.

    Returns:
      The stages of `rlp.engine.stages.RLP` that compute something, each with its parts; stages and
      parts that a step does not have count 0.
    """
    s = settings
    work = _rlp_work(config, settings, vocabulary, batch, length, decoded)
    forward = {part: forward_flops(config, done) for part, done in work.items()}
    decode = forward["opening"] + forward["sampled"]
    reference = forward["thoughts"] if s.kl_weight else 0
    update = training_flops(config, work["learnt"] + work["text"])
    if config.num_layers <= choices().unrolled_layers:
        decode -= _last_block_flops(config, forward_flops, work["opening"])
        if s.kl_weight:
            reference -= _last_block_flops(config, forward_flops, work["prefill"])
        if not s.next_token_weight:
            update -= _last_block_flops(config, training_flops, work["prefill"])
    ema = EMA_FLOPS * count_parameters(config) if s.baseline == "ema" else 0
    return {
        "read": {"scoring": forward["choice"], "prefill": forward["prefill"]},
        "no_think": {"scoring": forward["without"], "baseline": forward["baseline"]},
        "rollout": {"decode": decode},
        "evidence": {"scoring": forward["targets"]},
        "reference": {"reference": reference},
        "update": {
            "update": s.updates_per_rollout * update,
            "optimizer": s.updates * optimizer,
        },
        "finish": {"optimizer": ema},
    }


def _rlp_work(
    config: ModelConfig,
    settings: RLPSettings,
    vocabulary: Vocabulary,
    batch: int,
    length: int,
    decoded: int,
) -> dict[str, Work]:
    """What an RLP step passes through a network; arguments as of `rlp_flops`."""
    s = settings
    trunk = length + len(s.prompt)
    branches = batch * s.forks_per_document * s.group_size
    prefill = Work(batch * trunk, batch * trunk_pairs(config, trunk))
    documents = Work(batch * length, batch * trunk_pairs(config, length))

    # Slots that predict actions, and before them those of the opening tag that do not.
    known = len(vocabulary.think_open) - 1
    slots = known + s.thought_length

    def on_branches(tokens: int, where: range, own: int = slots, logits: int = 0) -> Work:
        return Work(tokens, branch_pairs(config, tokens, trunk, own, where), logits)

    after = len(vocabulary.think_close) + s.horizon  # the last action, the tag, the target
    targets = range(slots, slots + after)
    scored = on_branches(branches * after, targets, targets.stop, branches * s.horizon)
    without = Work(logits=batch * s.forks_per_document * s.horizon)
    choice = documents + Work(logits=batch * (length - 1))
    acted = branches * s.thought_length
    thoughts = on_branches(branches * slots, range(slots), logits=acted)  # all at once
    every = slots + after  # with the slots of tag and target
    learnt = on_branches(branches * every, range(every), every, acted + branches * s.horizon)
    objective = find(s.objective)
    elsewhere = scored if objective.reads_elsewhere else Work()
    if objective.reads_in_another:
        elsewhere += on_branches(branches * every, range(every), every, branches * s.horizon)
    by_theta = without + (documents if s.prompt else Work())
    return {
        "choice": choice if s.positions in SCORED else Work(),
        "prefill": prefill,
        "opening": on_branches(branches * known, range(known)),
        "sampled": on_branches(decoded, range(known, slots), logits=decoded),
        "without": Work() if objective.reads_answers else by_theta,
        "targets": Work() if objective.reads_answers else scored + elsewhere,
        "baseline": without + documents if s.baseline != "none" else Work(),
        "thoughts": prefill + thoughts,
        "learnt": prefill + (learnt if s.learns_target else thoughts),
        "text": Work(logits=batch * (trunk - 1)) if s.next_token_weight else Work(),
    }


def _last_block_flops(config: ModelConfig, count: Callable, work: Work) -> int:
    """FLOPs of the last block on tokens of which nothing else is read than its keys and values,
    less those: of a trunk in training or for a reference, and of an opening tag.

    Straight code leaves them out, a scan does not.
    """
    block = dataclasses.replace(config, num_layers=1)
    keys_and_values = 4 * work.tokens * config.hidden_size * config.num_kv_heads * config.head_dim
    passes = 1
    if count is training_flops:
        passes = 4 if config.remat == "block" else 3
    return count(block, work) - passes * keys_and_values
