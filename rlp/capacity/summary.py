"""The results of compiling a step as text, and whether the step fits into memory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from models.paths import by_name
from models.sharding import batch_shards
from models.transformer import count_parameters
from rlp.capacity.chips import GIB, GPU_SHARE, Chip, Topology
from rlp.capacity.programs import CompiledStage, CompiledStep, OutOfMemory
from rlp.capacity.roofline import Roofline, rooflines
from rlp.capacity.step_spec import StepSpec
from rlp.engine.placement import device_bytes

# Stages whose memory depends on the size of a rollout batch.
THINKING = ("read", "no_think", "rollout", "evidence", "reference")


def heading(topology: Topology, spec: StepSpec) -> Iterator[str]:
    """Describe the topology, the model, and the shape of a step."""
    yield f"{topology.name}: {topology.devices} chips, mesh {mesh_text(spec.mesh)}"
    step = f"{spec.rows} rows × {spec.length} tokens per step"
    yield f"{count_parameters(spec.model):,} parameters, {spec.model.compute_dtype} compute; {step}"
    if spec.settings is None:
        return
    s, (rows, forks), (documents, parts) = spec.settings, spec.rollout_batch, spec.rollout_batches
    yield (
        f"  prompt of {len(s.prompt)} tokens; per document {s.forks_per_document} fork(s) × "
        f"{s.group_size} thoughts × up to {s.thought_length} tokens; horizon {s.horizon}"
    )
    yield (
        f"  {documents * parts} rollout batch(es) of {rows} documents × {forks * s.group_size} "
        f"thoughts; {s.updates} update(s), each in {spec.micro_batches} micro-batch(es) of "
        f"{' × '.join(map(str, spec.micro_batch))} thoughts"
    )


def whole(
    topology: Topology, spec: StepSpec, compiled: CompiledStep, refused: OutOfMemory | None
) -> tuple[bool, list[str]]:
    """Return whether a step fits, and the lines of all tables with the conclusion."""
    nodes = [device.process_index for device in spec.mesh.devices.flat]
    node = nodes.__getitem__ if topology.chip.network else lambda _: 0
    lines = ["", *memory_tables(compiled)]
    if compiled.stages:
        lines += ["", *collective_table(compiled.stages, node)]
    if refused is None:
        phases = rooflines(spec, topology.chip, compiled.stages, node)
        lines += ["", *roofline_table(phases, topology.chip)]
        if spec.settings:
            lines.append(f"  (if all thoughts have {spec.settings.thought_length} tokens)")
    fits, line = conclusion(compiled, refused, topology, lambda stage: advice(spec, stage))
    return fits, [*lines, "", line]


def advice(spec: StepSpec, stage: str) -> str:
    """Return what to change if a stage does not fit."""
    cures = []
    if spec.settings is None:
        cures.append("lower batch_size")
    elif stage in THINKING:
        (rows, forks), group = spec.rollout_batch, spec.settings.group_size
        if rows * forks * group > batch_shards(spec.mesh) * group:
            thoughts = rows * forks * group
            cures.append(
                f"lower rlp.max_branches_in_flight (a rollout batch has {thoughts} thoughts)"
            )
    else:
        rows, branches = spec.micro_batch
        if (thoughts := rows * branches) > batch_shards(spec.mesh):
            cures.append(f"lower rlp.update_micro_batch (a micro-batch has {thoughts} thoughts)")
    if stage == "update" and spec.model.remat == "none":
        cures.append("set model.remat to 'block'")
    return ", ".join([*cures, "raise mesh.fsdp or mesh.tensor", "or use more chips"])


def mesh_text(mesh: Mesh) -> str:
    """Return the sizes of a mesh as text."""
    return " × ".join(f"{name} {size}" for name, size in mesh.shape.items())


def sharding_table(params: Any) -> Iterator[str]:
    """Tabulate shape, PartitionSpec and bytes per device of abstract parameters, with the total."""
    rows = [("parameter", "shape", "spec", "bytes per device")]
    for name, leaf in by_name(params).items():
        shape = "×".join(map(str, leaf.shape))
        spec = ", ".join(_axes(entry) for entry in leaf.sharding.spec)
        rows.append((name, shape, f"({spec})", f"{device_bytes(leaf):,}"))
    rows.append(("total", "", "", f"{device_bytes(params):,}"))
    return _aligned(rows, "<<<>")


def _axes(entry: Any) -> str:
    if entry is None:
        return "replicated"
    return entry if isinstance(entry, str) else "+".join(entry)


def memory_tables(compiled: CompiledStep) -> Iterator[str]:
    """Tabulate the arrays that outlive a stage, and the memory of each stage."""
    unit, size = _unit(held.bytes for held in compiled.held)
    yield f"Live arrays, {unit} per device"
    yield from _aligned(
        [(held.name, size(held.bytes), held.detail) for held in compiled.held], "<><"
    )
    if not compiled.stages:
        return
    yield ""
    unit, size = _unit(stage.peak for stage in compiled.stages)
    yield f"Memory of the stages, {unit} per device"
    rows: list[tuple[str, ...]] = [
        ("stage", "runs", "arguments", "outputs", "temp", "other live", "peak")
    ]
    for s in compiled.stages:
        sizes = (s.arguments, s.outputs, s.temporaries, s.others, s.peak)
        rows.append((s.name, str(s.times), *map(size, sizes)))
    yield from _aligned(rows, "<>>>>>>")
    for stage in compiled.stages:
        yield from (f"  {stage.name}: {remark}" for remark in stage.remarks)


def collective_table(stages: Sequence[CompiledStage], node: Callable[[int], int]) -> Iterator[str]:
    """Tabulate the collectives of a step by stage and kind."""
    counts: Counter = Counter()
    sent: dict[tuple[str, ...], float] = defaultdict(float)
    for stage in stages:
        for collective in stage.collectives:
            scope = "between nodes" if collective.crosses(node) else ""
            key = (stage.name, collective.kind, scope)
            counts[key] += stage.times * collective.count
            sent[key] += stage.times * collective.sent
    unit, size = _unit(sent.values())
    yield f"Collectives per step and device{'' if counts else ': none'}"
    if counts:
        rows = [("stage", "collective", "", "count", f"{unit} sent")]
        rows += [(*key, f"{counts[key]:,}", size(sent[key])) for key in counts if counts[key]]
        yield from _aligned(rows, "<<<>>")


def roofline_table(phases: Sequence[Roofline], chip: Chip) -> Iterator[str]:
    """Tabulate the minimum time of each phase of a step, and its bound."""
    speeds = f"{chip.flops / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e9:.0f} GB/s HBM"
    network = f", {chip.network / 1e9:.0f} GB/s network" if chip.network else ""
    yield f"Roofline per device ({speeds}, {chip.link / 1e9:.0f} GB/s links{network})"
    rows: list[tuple[str, ...]] = [("phase", "TFLOP", "GB HBM", "GB sent", "min seconds", "bound")]
    for phase in phases:
        numbers = (phase.flops / 1e12, phase.bytes / 1e9, phase.sent / 1e9, phase.time)
        rows.append((phase.name, *map(_number, numbers), phase.bound))
    rows.append(("step", "", "", "", _number(sum(phase.time for phase in phases)), ""))
    yield from _aligned(rows, "<>>>><")


def conclusion(
    compiled: CompiledStep,
    refused: OutOfMemory | None,
    topology: Topology,
    advice: Callable[[str], str],
) -> tuple[bool, str]:
    """Return whether a step fits, and one line with its peak memory and, if not, the cure."""
    chip = topology.chip
    limit = chip.usable()
    if refused is None and compiled.worst.peak <= limit:
        return True, f"fits: peak {_gib_text(compiled.worst.peak)} of {_gib_text(limit)} GiB"
    name = refused.stage if refused else compiled.worst.name
    peak = refused.needed if refused else compiled.worst.peak
    needed = f"peak {_gib_text(peak)} of" if peak else "more than"
    line = f"does not fit: {needed} {_gib_text(limit)} GiB in {name}; {advice(name)}"
    if chip.platform == "cuda" and limit < peak < chip.memory:
        line += f", or raise {GPU_SHARE}"
    return False, line


def _gib_text(size: float) -> str:
    return f"{size / GIB:,.2f}"


def _unit(sizes: Iterable[float]) -> tuple[str, Callable[[float], str]]:
    """Return GiB or MiB, whichever suits these bytes, and a function that formats bytes in it."""
    name, unit = ("GiB", GIB) if max(sizes, default=0) >= GIB / 4 else ("MiB", GIB / 1024)
    return name, lambda size: f"{size / unit:,.2f}"


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _aligned(rows: Iterable[Sequence[str]], sides: str) -> Iterator[str]:
    """Align rows of text as columns, to the left ("<") or right (">") as in `sides`."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, sides, widths, strict=True)
        yield ("  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells)).rstrip()
