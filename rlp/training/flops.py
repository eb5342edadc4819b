"""FLOPs of a step, counted from the shapes of its programs (a multiply-add is 2 FLOPs).

The count includes every matmul that is executed: linear maps and logits of all slots, including
padding and dead slots, and attention scores over all keys, including masked ones. Attention kernels
skip invisible keys, but the forks are not known here, so a branch counts as if it saw its whole
trunk, which overestimates attention by at most a factor of 2. The count is the total over all
devices and does not depend on the mesh. A backward pass counts as twice its forward pass, plus what
it recomputes. The elementwise work of the optimizer is counted per parameter
(`rlp/engine/optimizer.py`). That of the network (norms, softmax) is not counted: it is a few
percent for a small model and negligible for a large one.

FLOPs are counted for every stage of `rlp/engine/stages.py`, in the parts of
`rlp/training/cost.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence

from models.config import ModelConfig
from models.layers.protocol import BranchTokens, Cost, TrunkTokens
from models.layers.registry import layer_counts, layers
from models.transformer import count_parameters, decodes_unrolled, is_unrolled
from rlp.engine.branches import Vocabulary
from rlp.engine.forks import SCORED
from rlp.engine.readings import BRANCH_PASS, TARGET_PASS, costs
from rlp.engine.scoring import logits_are_kept
from rlp.engine.stages import NEXT_TOKEN, RLP
from rlp.engine.step import RLPSettings
from rlp.objectives.registry import reads_answers

Flops = dict[str, dict[str, int]]  # of a step: stage of `rlp.engine.stages` -> part -> FLOPs
EMA_FLOPS = 3  # per parameter: tau phi + (1 - tau) theta


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of a network.

    Attributes:
      passes: of tokens through all layers.
      logits: number of tokens whose logits are scored (`rlp/engine/scoring.py`). A backward pass
        recomputes them if they are computed in chunks.
      text: number of tokens of a text loss (`rlp/engine/text_loss.py`), whose logits are computed
        once, with their gradient.
    """

    passes: tuple[TrunkTokens | BranchTokens, ...] = ()
    logits: int = 0
    text: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.passes + other.passes, self.logits + other.logits, self.text + other.text)


def on_rows(rows: int, length: int, forks: int = 0, logits: int = 0) -> Work:
    """Return the work of a pass over documents [rows, length] with `forks` forks per document."""
    return Work((TrunkTokens(rows, length, forks),), logits)


def forward_flops(config: ModelConfig, work: Work) -> int:
    """Return the FLOPs of a forward pass, with those of branch caches."""
    layer_flops = _of_layers(config, work.passes, lambda cost, ends: cost.linear + cost.mixing)
    return layer_flops + (work.logits + work.text) * logit_flops(config)


def training_flops(config: ModelConfig, work: Work) -> int:
    """Return the FLOPs of a forward and a backward pass, with the recomputation of the latter."""
    recomputed = _of_layers(config, work.passes, lambda cost, ends: _recomputed(config, cost, ends))
    final = _of_layers(config, work.passes, lambda cost, ends: cost.final)
    if not logits_are_kept(work.logits, config.vocab_size):
        recomputed += work.logits * logit_flops(config)
    return 3 * (forward_flops(config, work) - final) + recomputed


def _recomputed(config: ModelConfig, cost: Cost, ends: bool) -> int:
    """Return the FLOPs that a backward pass recomputes; `ends` if the kind is the layer's last."""
    recomputed = cost.again
    if config.remat in ("block", "dots"):
        recomputed += cost.mixing - cost.final
    if config.remat == "block":  # all but the last matmul, whose output no gradient needs
        recomputed += cost.linear - cost.last * ends
    return recomputed


def _of_layers(
    config: ModelConfig,
    passes: Sequence[TrunkTokens | BranchTokens],
    count: Callable[[Cost, bool], int],
) -> int:
    """Return the sum over all layers of `count(cost, whether the kind is the layer's last)`."""
    return sum(
        number * count(kind.cost(config, tokens), kind is kinds[-1])
        for kinds, number in layer_counts(config).items()
        for kind in kinds
        for tokens in passes
    )


def logit_flops(config: ModelConfig) -> int:
    """Return the FLOPs of the logits of one token."""
    return 2 * config.hidden_size * config.vocab_size


def without_remat(config: ModelConfig) -> ModelConfig:
    """Return the config whose backward pass does not recompute layers."""
    return dataclasses.replace(config, remat="none")


def total(flops: Flops) -> int:
    """Return the FLOPs of all stages of a step."""
    return sum(by_part(flops).values())


def by_part(flops: Flops) -> dict[str, int]:
    """Return the FLOPs of a step by part, summed over its stages."""
    totals: dict[str, int] = {}
    for parts in flops.values():
        for part, count in parts.items():
            totals[part] = totals.get(part, 0) + count
    return totals


def by_phase(flops: Flops) -> dict[str, int]:
    """Return the FLOPs of a step by phase, summed over stages and parts."""
    phases = {stage.name: stage.phase for stage in (*NEXT_TOKEN, *RLP)}
    totals: dict[str, int] = {}
    for stage, parts in flops.items():
        totals[phases[stage]] = totals.get(phases[stage], 0) + sum(parts.values())
    return totals


def next_token_flops(config: ModelConfig, optimizer: int, rows: int, length: int) -> Flops:
    """Return the FLOPs of a next-token step on [rows, length] tokens; `optimizer` as in
    `rlp_flops`."""
    work = on_rows(rows, length) + Work(text=rows * (length - 1))
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
    """Return the FLOPs of an RLP step.

    Args:
      config: of the network.
      settings: of the method.
      vocabulary: for the lengths of the tags.
      optimizer: FLOPs of one update, from `Optimizer.flops`.
      batch: B.
      length: T, without the thinking prompt.
      decoded: decoded tokens of the step's rollout, `Rollout.decoded`.

    Returns:
      From stage of `rlp.engine.stages.RLP` to part to FLOPs; 0 for stages and parts that the step
      does not include.
    """
    s = settings
    work = _rlp_work(config, settings, vocabulary, batch, length, decoded)
    forward = {name: forward_flops(config, passes) for name, passes in work.items()}
    decode = forward["opening"] + forward["sampled"]
    reference = forward["thoughts"] if s.kl_weight else 0
    update = training_flops(config, work["loss"] + work["text"])
    if decodes_unrolled(config):
        decode -= unread_flops(config, work["opening"])
    if is_unrolled(config):
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
    """Return the passes of an RLP step through a network, by name; arguments as in `rlp_flops`."""
    s = settings
    trunk = length + len(s.prompt)
    branches = batch * s.forks_per_document * s.group_size
    prefill = on_rows(batch, trunk, s.forks_per_document)
    documents = on_rows(batch, length)

    # The first `opening` slots of the opening tag do not predict actions.
    opening = len(vocabulary.think_open) - 1
    slots = opening + s.thought_length

    def on_branches(tokens: int, where: range, own: int = slots, logits: int = 0) -> Work:
        return Work((BranchTokens(tokens, where, trunk, own),), logits)

    after = len(vocabulary.think_close) + s.horizon  # the last action, the tag, the target
    targets = range(slots, slots + after)
    scored = on_branches(branches * after, targets, targets.stop, branches * s.horizon)
    without = Work(logits=batch * s.forks_per_document * s.horizon)
    choice = documents + Work(logits=batch * (length - 1))
    actions = branches * s.thought_length
    thoughts = on_branches(branches * slots, range(slots), logits=actions)  # in one pass
    every = slots + after  # with the slots of tag and target
    with_target = on_branches(branches * every, range(every), every, actions + branches * s.horizon)
    answers = reads_answers(s.objective)
    branch = on_branches(branches * every, range(every), every, branches * s.horizon)
    passes = {TARGET_PASS: scored, BRANCH_PASS: branch}
    targets_read = sum((passes[cost] for cost in costs(s.objective)), scored)
    by_theta = without + (documents if s.prompt else Work())
    return {
        "choice": choice if s.positions in SCORED else Work(),
        "prefill": prefill,
        "opening": on_branches(branches * opening, range(opening)),
        "sampled": on_branches(decoded, range(opening, slots), logits=decoded),
        "without": Work() if answers else by_theta,
        "targets": Work() if answers else targets_read,
        "baseline": without + documents if s.baseline != "none" else Work(),
        "thoughts": prefill + thoughts,
        "loss": prefill + (with_target if s.learns_target else thoughts),
        "text": Work(text=batch * (trunk - 1)) if s.next_token_weight else Work(),
    }


def unread_flops(config: ModelConfig, work: Work, training: bool = False) -> int:
    """Return the FLOPs of the last layers on tokens of which only cached values are read.

    Such tokens are those of a trunk in training or under the reference, and of an opening tag. XLA
    removes this work from unrolled layers, but not from a scan over layers.
    """
    unread = 0
    kinds = [(kind, kind is of_layer[-1]) for of_layer in layers(config) for kind in of_layer]
    for kind, ends in reversed(kinds):
        cached = 0
        for tokens in work.passes:
            cost = kind.cost(config, tokens)
            forward, recomputed = cost.linear + cost.mixing, _recomputed(config, cost, ends)
            unread += 3 * forward + recomputed if training else forward
            cached += cost.cached
        if cached:
            times = 1 if not training else 4 if config.remat == "block" else 3
            return unread - times * cached
    return unread
