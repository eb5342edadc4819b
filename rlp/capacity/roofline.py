"""FLOPs and bytes of a step by our own count, and the least time that its stages can take.

FLOPs are those of `rlp.training.flops`: every matmul that is executed, all thoughts at full length,
and the optimizer. Bytes between HBM and a chip are counted by a simple model, of what must move
whatever the compiler does:

    parameters   read once by a forward pass over a rollout batch, a micro-batch or a decoded
                 token, in the compute dtype, and once more by each of the three passes of a
                 gradient
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
from rlp.capacity.programs import CompiledStage
from rlp.capacity.step_spec import StepSpec
from rlp.training.flops import Work, by_phase, next_token_flops, on_rows, rlp_flops

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
    spec: StepSpec, chip: Chip, stages: Sequence[CompiledStage], node: Callable[[int], int]
) -> list[Roofline]:
    """The parts of a step, one after the other.

    Args:
      stages: compiled, for their collectives.
      node: of a device, by its number in the mesh; devices of one are neighbours.
    """
    optimizer = spec.optimizer.flops(shapes(spec.model))
    if spec.settings is None:
        flops = by_phase(next_token_flops(spec.model, optimizer, spec.rows, spec.length))
        moved = {"update": next_token_bytes(spec)}
    else:
        s = spec.settings
        decoded = spec.rows * spec.branches * s.thought_length
        flops = {"gather": 0} | by_phase(
            rlp_flops(spec.model, s, spec.vocabulary, optimizer, spec.rows, spec.length, decoded)
        )
        moved = rlp_bytes(spec)
    found = []
    for name, work in flops.items():
        if not any(stage.phase == name for stage in stages):
            continue
        near, far = _sent([stage for stage in stages if stage.phase == name], node)
        each = work / spec.mesh.size
        seconds = (
            each / chip.flops,
            moved[name] / chip.bandwidth,
            near / chip.link + (far / chip.network if chip.network else 0.0),
        )
        found.append(Roofline(name, each, moved[name], near + far, seconds))
    return found


def _sent(stages: Sequence[CompiledStage], node: Callable[[int], int]) -> tuple[float, float]:
    """Bytes that a device sends in some stages: to neighbours, and beyond its node."""
    near = far = 0.0
    for stage in stages:
        for found in stage.collectives:
            if found.crosses(node):
                far += stage.times * found.sent
            else:
                near += stage.times * found.sent
    return near, far


def next_token_bytes(spec: StepSpec) -> float:
    """Bytes that a device moves in a step of next-token training."""
    work = on_rows(spec.rows, spec.length, logits=spec.rows * spec.length)
    return 3 * _weights(spec) + _gradient_pass(spec, work) + _optimizer(spec, 1)


def rlp_bytes(spec: StepSpec) -> dict[str, float]:
    """Bytes that a device moves in each part of a step of RLP."""
    s, words = spec.rlp, spec.vocabulary
    trunk = spec.length + len(s.prompt)
    branches = spec.rows * spec.branches
    # All batches of a document's forks read its cache.
    document_batches, rereads = spec.rollout_batches
    batches = document_batches * rereads
    slots = len(words.think_open) - 1 + s.thought_length
    after = len(words.think_close) + s.horizon
    trunks = _per_device(spec, trunk_bytes(spec.model, spec.rows, trunk, s.forks_per_document))
    thoughts = _per_device(spec, branch_bytes(spec.model, spec.rows, spec.branches, slots))

    def on_branches(tokens: int, where: range, own: int = slots, logits: int = 0) -> Work:
        return Work((BranchTokens(tokens, where, trunk, own),), logits)

    def cached(decoding: bool) -> float:
        return sum(
            kind.traffic(spec.model, rereads * trunks[kind], thoughts[kind], decoding)
            for kind in trunks
        )

    prefill = on_rows(spec.rows, trunk, s.forks_per_document)
    documents = on_rows(spec.rows, spec.length)
    step = on_branches(branches, range(slots), logits=branches)  # all branches, one token
    reading = document_batches * _weights(spec) + _forward_pass(spec, prefill)
    reading += sum(trunks.values())
    each_step = batches * _weights(spec) + cached(decoding=True) + _forward_pass(spec, step)
    targets = range(slots, slots + after)
    scored = on_branches(branches * after, targets, targets.stop, branches * s.horizon)
    written = prefill + on_branches(branches * slots, range(slots), logits=branches * slots)
    without = int(bool(s.prompt)) + int(s.baseline != "none")  # passes over documents alone
    evidence = (
        (batches + without * document_batches) * _weights(spec)
        + cached(decoding=False)
        + _forward_pass(spec, scored)
        + without * _forward_pass(spec, documents)
    )
    if spec.answers:
        evidence = 0.0
    if s.kl_weight:  # all thoughts once more, by the reference
        evidence += batches * _weights(spec) + _forward_pass(spec, written)
    each_update = 3 * spec.micro_batches * _weights(spec) + _optimizer(spec, spec.micro_batches)
    passes = s.updates_per_rollout * _gradient_pass(spec, written)
    average = 3 * _at_rest(spec) if s.baseline == "ema" else 0.0
    return {
        "gather": _at_rest(spec) + _weights(spec),
        "rollout": reading + s.thought_length * each_step,
        "evidence": evidence,
        "update": passes + s.updates * each_update + average,
    }


def _per_device(spec: StepSpec, each: Mapping[LayerKind, int]) -> dict[LayerKind, float]:
    """Bytes of caches of a whole batch, on one device."""
    return {kind: size / spec.mesh.size for kind, size in each.items()}


def _weights(spec: StepSpec) -> float:
    """Bytes of the parameters as a device multiplies by them: whole over fsdp, in its dtype."""
    return (
        count_parameters(spec.model)
        * np.dtype(spec.model.dtype).itemsize
        / spec.mesh.shape["tensor"]
    )


def _at_rest(spec: StepSpec) -> float:
    """Bytes of the parameters as they lie, float32; with mesh.data they lie several times."""
    return (
        count_parameters(spec.model)
        * FLOAT32
        / (spec.mesh.shape["tensor"] * spec.mesh.shape["fsdp"])
    )


def _optimizer(spec: StepSpec, parts: int) -> float:
    """Gradients summed over micro-batches, and an update of parameters and two moments."""
    return (2 * parts + 1 + 6) * _at_rest(spec)


def _forward_pass(spec: StepSpec, work: Work) -> float:
    return _activations(spec, work) + _scores(spec, work)


def _gradient_pass(spec: StepSpec, work: Work) -> float:
    again = 4 if spec.model.remat == "block" else 3
    return again * _activations(spec, work) + 3 * _scores(spec, work)


def _activations(spec: StepSpec, work: Work) -> float:
    """Bytes that the linear maps of all layers read and write."""
    moved = _of_layers(spec, work, lambda cost: cost.moved)
    return moved * np.dtype(spec.model.dtype).itemsize / spec.mesh.size


def _scores(spec: StepSpec, work: Work) -> float:
    """Bytes of attention scores, or what layers have in their place, and of logits."""
    scores = _of_layers(spec, work, lambda cost: cost.scratch)
    return 2 * FLOAT32 * (scores + work.logits * spec.model.vocab_size) / spec.mesh.size


def _of_layers(spec: StepSpec, work: Work, count: Callable[[Cost], int]) -> int:
    """The sum of `count` over all layers."""
    return sum(
        number * count(kind.cost(spec.model, tokens))
        for kind, number in kind_counts(spec.model).items()
        for tokens in work.passes
    )
