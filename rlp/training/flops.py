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
from collections.abc import Callable, Sequence

from models.backend import choices
from models.config import ModelConfig
from models.layers.protocol import BranchTokens, Cost, TrunkTokens
from models.layers.registry import layer_counts, layers
from models.transformer import count_parameters
from rlp.engine.branches import Vocabulary
from rlp.engine.forks import SCORED
from rlp.engine.readings import BRANCH_PASS, TARGET_PASS, costs
from rlp.engine.scoring import logit_chunks
from rlp.engine.stages import NEXT_TOKEN, RLP
from rlp.engine.step import RLPSettings
from rlp.objectives.registry import reads_answers

Flops = dict[str, dict[str, int]]  # of a step: stage of `rlp.engine.stages` to part to FLOPs
EMA_FLOPS = 3  # of a parameter: tau phi + (1 - tau) theta


@dataclasses.dataclass(frozen=True)
class Work:
    """What passes through a network: tokens through all layers, and tokens whose logits are
    computed."""

    passes: tuple[TrunkTokens | BranchTokens, ...] = ()
    logits: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.passes + other.passes, self.logits + other.logits)


def on_rows(rows: int, length: int, forks: int = 0, logits: int = 0) -> Work:
    """A pass over documents: [rows, length] tokens, with `forks` places where branches leave."""
    return Work((TrunkTokens(rows, length, forks),), logits)


def forward_flops(config: ModelConfig, work: Work) -> int:
    """FLOPs of a forward pass."""
    each = _of_layers(config, work.passes, lambda cost, ends: cost.linear + cost.mixing)
    return each + work.logits * logit_flops(config)


def training_flops(config: ModelConfig, work: Work) -> int:
    """FLOPs of a forward and backward pass, with what the backward computes again."""
    again = _of_layers(config, work.passes, lambda cost, ends: _again(config, cost, ends))
    if logit_chunks(work.logits, config.vocab_size) > 1:
        again += work.logits * logit_flops(config)
    return 3 * forward_flops(config, work) + again


def _again(config: ModelConfig, cost: Cost, ends: bool) -> int:
    """FLOPs that a backward pass computes again of a kind; `ends`: it is a layer's last."""
    again = cost.again
    if config.remat in ("block", "dots"):
        again += cost.mixing
    if config.remat == "block":  # all but the last matmul, whose output no gradient needs
        again += cost.linear - cost.last * ends
    return again


def _of_layers(
    config: ModelConfig,
    passes: Sequence[TrunkTokens | BranchTokens],
    count: Callable[[Cost, bool], int],
) -> int:
    """The sum of `count(cost, whether it is the layer's last kind)` over all layers."""
    return sum(
        number * count(kind.cost(config, tokens), kind is kinds[-1])
        for kinds, number in layer_counts(config).items()
        for kind in kinds
        for tokens in passes
    )


def logit_flops(config: ModelConfig) -> int:
    """FLOPs of the logits of one token."""
    return 2 * config.hidden_size * config.vocab_size


def without_remat(config: ModelConfig) -> ModelConfig:
    """Return the same network, with its activations kept, so that nothing is counted twice."""
    return dataclasses.replace(config, remat="none")


def total(flops: Flops) -> int:
    """Return the FLOPs of all stages of a step."""
    return sum(by_part(flops).values())


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
    work = on_rows(rows, length, logits=rows * (length - 1))
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
        decode -= unread_flops(config, work["opening"])
        if s.kl_weight:
            reference -= unread_flops(config, work["prefill"])
        if not s.next_token_weight:
            update -= unread_flops(config, work["prefill"], training=True)
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
    prefill = on_rows(batch, trunk, s.forks_per_document)
    documents = on_rows(batch, length)

    # Slots that predict actions, and before them those of the opening tag that do not.
    known = len(vocabulary.think_open) - 1
    slots = known + s.thought_length

    def on_branches(tokens: int, where: range, own: int = slots, logits: int = 0) -> Work:
        return Work((BranchTokens(tokens, where, trunk, own),), logits)

    after = len(vocabulary.think_close) + s.horizon  # the last action, the tag, the target
    targets = range(slots, slots + after)
    scored = on_branches(branches * after, targets, targets.stop, branches * s.horizon)
    without = Work(logits=batch * s.forks_per_document * s.horizon)
    choice = documents + Work(logits=batch * (length - 1))
    acted = branches * s.thought_length
    thoughts = on_branches(branches * slots, range(slots), logits=acted)  # all at once
    every = slots + after  # with the slots of tag and target
    learnt = on_branches(branches * every, range(every), every, acted + branches * s.horizon)
    answers = reads_answers(s.objective)
    branch = on_branches(branches * every, range(every), every, branches * s.horizon)
    passes = {TARGET_PASS: scored, BRANCH_PASS: branch}
    targets_read = sum((passes[cost] for cost in costs(s.objective)), scored)
    by_theta = without + (documents if s.prompt else Work())
    return {
        "choice": choice if s.positions in SCORED else Work(),
        "prefill": prefill,
        "opening": on_branches(branches * known, range(known)),
        "sampled": on_branches(decoded, range(known, slots), logits=decoded),
        "without": Work() if answers else by_theta,
        "targets": Work() if answers else targets_read,
        "baseline": without + documents if s.baseline != "none" else Work(),
        "thoughts": prefill + thoughts,
        "learnt": prefill + (learnt if s.learns_target else thoughts),
        "text": Work(logits=batch * (trunk - 1)) if s.next_token_weight else Work(),
    }


def unread_flops(config: ModelConfig, work: Work, training: bool = False) -> int:
    """FLOPs of the last layers on tokens of which nothing is read but what caches keep: of a trunk
    in training or for a reference, and of an opening tag.

    Straight code leaves them out, a scan does not.
    """
    found = 0
    kinds = [(kind, kind is of_layer[-1]) for of_layer in layers(config) for kind in of_layer]
    for kind, ends in reversed(kinds):
        cached = 0
        for tokens in work.passes:
            cost = kind.cost(config, tokens)
            forward, again = cost.linear + cost.mixing, _again(config, cost, ends)
            found += 3 * forward + again if training else forward
            cached += cost.cached
        if cached:
            times = 1 if not training else 4 if config.remat == "block" else 3
            return found - times * cached
    return found
