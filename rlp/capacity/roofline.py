"""FLOPs and bytes of a step by our own count, and the least time that its stages can take.

FLOPs are those of `rlp.training.flops`: every matmul that is executed, all thoughts at full length,
and the optimizer. Bytes between HBM and a chip are counted by a simple model, of what must move
whatever the compiler does:

    parameters   read once by a forward pass over a wave, a micro-batch or a decoded token, in the
                 compute dtype, and once more by each of the three passes of a gradient
    activations  every linear map reads its input and writes its output once, and three or four
                 times for a gradient
    caches       written once; read whole by every decoded token and by the evidence; by kernels,
                 of a branch's own what has been written, half of it on average
    scores       of attention without kernels: float32, written and read once; three times for a
                 gradient
    logits       float32, written and read once; three times for a gradient
    update       gradients (written, and read again by each micro-batch and by the optimizer),
                 parameters and two moments (read and written), all float32; the baseline's average

What collectives move comes from the compiled programs. The least time of a stage is that of the
slowest of the three, if they overlap perfectly.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.cache import branch_bytes, trunk_bytes
from models.layers.protocol import BranchTokens, Cost, LayerKind
from models.layers.registry import kind_counts
from models.transformer import count_parameters, shapes
from rlp.capacity.chips import Chip
from rlp.capacity.programs import Stage
from rlp.capacity.step_spec import Case
from rlp.training.flops import Work, by_stage, next_token_flops, on_rows, rlp_flops

FLOAT32 = 4
BOUNDS = ("arithmetic", "memory", "interconnect")


@dataclasses.dataclass(frozen=True)
class Roofline:
    """A part of a step on one device: what it does, and the seconds that each bound asks for."""

    name: str
    flops: float
    bytes: float
    sent: float
    seconds: tuple[float, float, float]  # of `BOUNDS`

    @property
    def time(self) -> float:
        """Seconds, at the least."""
        return max(self.seconds)

    @property
    def bound(self) -> str:
        """Which of `BOUNDS` that is."""
        return BOUNDS[self.seconds.index(self.time)]


def rooflines(
    case: Case, chip: Chip, stages: Sequence[Stage], node: Callable[[int], int]
) -> list[Roofline]:
    """The parts of a step, one after the other.

    Args:
      stages: compiled, for their collectives.
      node: of a device, by its number in the mesh; devices of one are neighbours.
    """
    optimizer = case.optimizer.flops(shapes(case.model))
    if case.settings is None:
        flops = by_stage(next_token_flops(case.model, optimizer, case.rows, case.length))
        moved = {"update": next_token_bytes(case)}
    else:
        s = case.settings
        decoded = case.rows * case.branches * s.thought_length
        flops = {"gather": 0} | by_stage(
            rlp_flops(case.model, s, case.vocabulary, optimizer, case.rows, case.length, decoded)
        )
        moved = rlp_bytes(case)
    found = []
    for name, work in flops.items():
        if not any(stage.part == name for stage in stages):
            continue
        near, far = _sent([stage for stage in stages if stage.part == name], node)
        each = work / case.mesh.size
        seconds = (
            each / chip.flops,
            moved[name] / chip.bandwidth,
            near / chip.link + (far / chip.network if chip.network else 0.0),
        )
        found.append(Roofline(name, each, moved[name], near + far, seconds))
    return found


def _sent(stages: Sequence[Stage], node: Callable[[int], int]) -> tuple[float, float]:
    """Bytes that a device sends in some stages: to neighbours, and beyond its node."""
    near = far = 0.0
    for stage in stages:
        for found in stage.collectives:
            if found.crosses(node):
                far += stage.times * found.sent
            else:
                near += stage.times * found.sent
    return near, far


def next_token_bytes(case: Case) -> float:
    """Bytes that a device moves in a step of next-token training."""
    work = on_rows(case.rows, case.length, logits=case.rows * case.length)
    return 3 * _weights(case) + _gradient_pass(case, work) + _optimizer(case, 1)


def rlp_bytes(case: Case) -> dict[str, float]:
    """Bytes that a device moves in each part of a step of RLP."""
    s, words = case.rlp, case.vocabulary
    trunk = case.length + len(s.prompt)
    branches = case.rows * case.branches
    documents_waves, rereads = case.waves  # a document's cache is read by all waves of its forks
    waves = documents_waves * rereads
    slots = len(words.think_open) - 1 + s.thought_length
    after = len(words.think_close) + s.horizon
    trunks = _per_device(case, trunk_bytes(case.model, case.rows, trunk, s.forks_per_document))
    thoughts = _per_device(case, branch_bytes(case.model, case.rows, case.branches, slots))

    def on_branches(tokens: int, where: range, own: int = slots, logits: int = 0) -> Work:
        return Work((BranchTokens(tokens, where, trunk, own),), logits)

    def cached(decoding: bool) -> float:
        return sum(
            kind.traffic(case.model, rereads * trunks[kind], thoughts[kind], decoding)
            for kind in trunks
        )

    prefill = on_rows(case.rows, trunk, s.forks_per_document)
    documents = on_rows(case.rows, case.length)
    step = on_branches(branches, range(slots), logits=branches)  # all branches, one token
    reading = documents_waves * _weights(case) + _forward_pass(case, prefill) + sum(trunks.values())
    each_step = waves * _weights(case) + cached(decoding=True) + _forward_pass(case, step)
    targets = range(slots, slots + after)
    scored = on_branches(branches * after, targets, targets.stop, branches * s.horizon)
    written = prefill + on_branches(branches * slots, range(slots), logits=branches * slots)
    without = int(bool(s.prompt)) + int(s.baseline != "none")  # passes over documents alone
    evidence = (
        (waves + without * documents_waves) * _weights(case)
        + cached(decoding=False)
        + _forward_pass(case, scored)
        + without * _forward_pass(case, documents)
    )
    if case.answers:
        evidence = 0.0
    if s.kl_weight:  # all thoughts once more, by the reference
        evidence += waves * _weights(case) + _forward_pass(case, written)
    each_update = 3 * case.micro_batches * _weights(case) + _optimizer(case, case.micro_batches)
    passes = s.updates_per_rollout * _gradient_pass(case, written)
    average = 3 * _at_rest(case) if s.baseline == "ema" else 0.0
    return {
        "gather": _at_rest(case) + _weights(case),
        "rollout": reading + s.thought_length * each_step,
        "evidence": evidence,
        "update": passes + s.updates * each_update + average,
    }


def _per_device(case: Case, each: Mapping[LayerKind, int]) -> dict[LayerKind, float]:
    """Bytes of caches of a whole batch, on one device."""
    return {kind: size / case.mesh.size for kind, size in each.items()}


def _weights(case: Case) -> float:
    """Bytes of the parameters as a device multiplies by them: whole over fsdp, in its dtype."""
    return (
        count_parameters(case.model)
        * np.dtype(case.model.dtype).itemsize
        / case.mesh.shape["tensor"]
    )


def _at_rest(case: Case) -> float:
    """Bytes of the parameters as they lie, float32; with mesh.data they lie several times."""
    return (
        count_parameters(case.model)
        * FLOAT32
        / (case.mesh.shape["tensor"] * case.mesh.shape["fsdp"])
    )


def _optimizer(case: Case, parts: int) -> float:
    """Gradients summed over micro-batches, and an update of parameters and two moments."""
    return (2 * parts + 1 + 6) * _at_rest(case)


def _forward_pass(case: Case, work: Work) -> float:
    return _activations(case, work) + _scores(case, work)


def _gradient_pass(case: Case, work: Work) -> float:
    again = 4 if case.model.remat == "block" else 3
    return again * _activations(case, work) + 3 * _scores(case, work)


def _activations(case: Case, work: Work) -> float:
    """Bytes that the linear maps of all layers read and write."""
    moved = _of_layers(case, work, lambda cost: cost.moved)
    return moved * np.dtype(case.model.dtype).itemsize / case.mesh.size


def _scores(case: Case, work: Work) -> float:
    """Bytes of attention scores, or what layers have in their place, and of logits."""
    scores = _of_layers(case, work, lambda cost: cost.scratch)
    return 2 * FLOAT32 * (scores + work.logits * case.model.vocab_size) / case.mesh.size


def _of_layers(case: Case, work: Work, count: Callable[[Cost], int]) -> int:
    """The sum of `count` over all layers."""
    return sum(
        number * count(kind.cost(case.model, tokens))
        for kind, number in kind_counts(case.model).items()
        for tokens in work.passes
    )
