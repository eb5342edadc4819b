"""A roofline of a step: FLOPs and bytes of each phase, and its minimum time.

FLOPs are those of `rlp.training.flops`: every executed matmul, with all thoughts at full length,
and the optimizer. HBM traffic follows a simple model of the bytes that must move whatever the
compiler does:

    parameters   read once per forward pass over a rollout batch, a micro-batch or a decoded token,
                 in the compute dtype; three times for a gradient
    activations  every linear map reads its input and writes its output once; three or four times
                 for a gradient
    caches       written once; read completely by every decoded token and by the evidence, but
                 kernels read only the written part of a branch cache, half of it on average
    scores       of attention without kernels: float32, written and read once; three times for a
                 gradient
    logits       float32, written and read once; three times for a gradient
    update       gradients (written, and read by each micro-batch and by the optimizer), parameters
                 and two moments (read and written), all float32; the moving average of the baseline

The bytes of collectives come from the compiled programs. The minimum time of a phase is the maximum
of the three times (compute, memory, communication), as if they overlapped perfectly.
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
BOUNDS = ("compute", "memory", "communication")


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The work of a phase of a step on one device, and its time at each bound."""

    name: str
    flops: float
    bytes: float  # of HBM traffic
    sent: float  # bytes of collectives
    seconds: tuple[float, float, float]  # of `BOUNDS`

    @property
    def time(self) -> float:
        """Minimum time, in seconds."""
        return max(self.seconds)

    @property
    def bound(self) -> str:
        """The bound that determines the time, one of `BOUNDS`."""
        return BOUNDS[self.seconds.index(self.time)]


def rooflines(
    spec: StepSpec, chip: Chip, stages: Sequence[CompiledStage], node: Callable[[int], int]
) -> list[Roofline]:
    """Return the rooflines of the phases of a step, in order.

    Args:
      spec: the step.
      chip: of the mesh.
      stages: compiled stages, for their collectives.
      node: from the index of a device in the mesh to its node. Devices of a node communicate over
        `Chip.link`, others over `Chip.network`.
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
    phases = []
    for name, work in flops.items():
        if not any(stage.phase == name for stage in stages):
            continue
        within, between = _sent([stage for stage in stages if stage.phase == name], node)
        device_flops = work / spec.mesh.size
        seconds = (
            device_flops / chip.flops,
            moved[name] / chip.bandwidth,
            within / chip.link + (between / chip.network if chip.network else 0.0),
        )
        phases.append(Roofline(name, device_flops, moved[name], within + between, seconds))
    return phases


def _sent(stages: Sequence[CompiledStage], node: Callable[[int], int]) -> tuple[float, float]:
    """Return the bytes that a device sends in some stages, within its node and between nodes."""
    within = between = 0.0
    for stage in stages:
        for collective in stage.collectives:
            if collective.crosses(node):
                between += stage.times * collective.sent
            else:
                within += stage.times * collective.sent
    return within, between


def next_token_bytes(spec: StepSpec) -> float:
    """Return the HBM traffic of a device in a step of next-token training, in bytes."""
    work = on_rows(spec.rows, spec.length, logits=spec.rows * spec.length)
    return 3 * _weights(spec) + _gradient_pass(spec, work) + _optimizer(spec, 1)


def rlp_bytes(spec: StepSpec) -> dict[str, float]:
    """Return the HBM traffic of a device in each phase of an RLP step, in bytes."""
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
    without = int(bool(s.prompt)) + int(s.baseline != "none")  # no-think passes over documents
    evidence = (
        (batches + without * document_batches) * _weights(spec)
        + cached(decoding=False)
        + _forward_pass(spec, scored)
        + without * _forward_pass(spec, documents)
    )
    if spec.answers:
        evidence = 0.0
    if s.kl_weight:  # all thoughts again, under the reference
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
    """Return the bytes per device of the caches of a step's batch."""
    return {kind: size / spec.mesh.size for kind, size in each.items()}


def _weights(spec: StepSpec) -> float:
    """Return the bytes of the parameters that a device reads: gathered over fsdp, in the compute
    dtype."""
    return (
        count_parameters(spec.model)
        * np.dtype(spec.model.dtype).itemsize
        / spec.mesh.shape["tensor"]
    )


def _at_rest(spec: StepSpec) -> float:
    """Return the bytes per device of the sharded float32 parameters; mesh.data replicates them."""
    return (
        count_parameters(spec.model)
        * FLOAT32
        / (spec.mesh.shape["tensor"] * spec.mesh.shape["fsdp"])
    )


def _optimizer(spec: StepSpec, parts: int) -> float:
    """Return the bytes of summing gradients over micro-batches and of an AdamW update."""
    return (2 * parts + 1 + 6) * _at_rest(spec)


def _forward_pass(spec: StepSpec, work: Work) -> float:
    return _activations(spec, work) + _scores(spec, work)


def _gradient_pass(spec: StepSpec, work: Work) -> float:
    again = 4 if spec.model.remat == "block" else 3
    return again * _activations(spec, work) + 3 * _scores(spec, work)


def _activations(spec: StepSpec, work: Work) -> float:
    """Return the bytes that the linear maps of all layers read and write."""
    moved = _of_layers(spec, work, lambda cost: cost.moved)
    return moved * np.dtype(spec.model.dtype).itemsize / spec.mesh.size


def _scores(spec: StepSpec, work: Work) -> float:
    """Return the bytes of logits and of attention scores, or the equivalent of other layers."""
    scores = _of_layers(spec, work, lambda cost: cost.scratch)
    return 2 * FLOAT32 * (scores + work.logits * spec.model.vocab_size) / spec.mesh.size


def _of_layers(spec: StepSpec, work: Work, count: Callable[[Cost], int]) -> int:
    """Return the sum of `count` over all layers."""
    return sum(
        number * count(kind.cost(spec.model, tokens))
        for kind, number in kind_counts(spec.model).items()
        for tokens in work.passes
    )
