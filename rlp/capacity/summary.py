"""What is known of a step, as text, and whether it fits."""

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

# Stages whose memory shrinks with the rollout batch.
THINKING = ("read", "no_think", "rollout", "evidence", "reference")


def heading(topology: Topology, spec: StepSpec) -> Iterator[str]:
    """What is compiled, and for what."""
    yield f"{topology.name}: {topology.devices} chips, mesh {mesh_text(spec.mesh)}"
    step = f"a step on {spec.rows} rows of {spec.length} tokens"
    yield f"{count_parameters(spec.model):,} parameters in {spec.model.compute_dtype}, {step}"
    if spec.settings is None:
        return
    s, (rows, forks), (documents, parts) = spec.settings, spec.rollout_batch, spec.rollout_batches
    yield (
        f"  after a prompt of {len(s.prompt)}; {s.forks_per_document} fork(s) of {s.group_size} "
        f"thoughts of up to {s.thought_length} tokens, then {s.horizon} of the text"
    )
    yield (
        f"  rollout in {documents * parts} batch(es) of {rows} documents × {forks * s.group_size} "
        f"thoughts, {s.updates} update(s) in {spec.micro_batches} micro-batch(es) of "
        f"{' × '.join(map(str, spec.micro_batch))}"
    )


def whole(
    topology: Topology, spec: StepSpec, compiled: CompiledStep, refused: OutOfMemory | None
) -> tuple[bool, list[str]]:
    """Whether a step fits, and all that is known of it."""
    nodes = [device.process_index for device in spec.mesh.devices.flat]
    node = nodes.__getitem__ if topology.chip.network else lambda _: 0
    lines = ["", *memory_tables(compiled)]
    if compiled.stages:
        lines += ["", *collective_table(compiled.stages, node)]
    if refused is None:
        parts = rooflines(spec, topology.chip, compiled.stages, node)
        lines += ["", *roofline_table(parts, topology.chip)]
        if spec.settings:
            lines.append(f"  (every thought {spec.settings.thought_length} tokens long)")
    fits, line = conclusion(compiled, refused, topology, lambda stage: advice(spec, stage))
    return fits, [*lines, "", line]


def advice(spec: StepSpec, stage: str) -> str:
    """What to change where a stage does not fit."""
    found = []
    if spec.settings is None:
        found.append("lower batch_size")
    elif stage in THINKING:
        (rows, forks), group = spec.rollout_batch, spec.settings.group_size
        if rows * forks * group > batch_shards(spec.mesh) * group:
            thoughts = rows * forks * group
            found.append(
                f"lower rlp.max_branches_in_flight (a rollout batch has {thoughts} thoughts)"
            )
    else:
        rows, branches = spec.micro_batch
        if rows * branches > batch_shards(spec.mesh):
            found.append(f"lower rlp.update_micro_batch (one has {rows * branches} thoughts)")
    if stage == "update" and spec.model.remat == "none":
        found.append("set model.remat to 'block'")
    return ", ".join([*found, "raise mesh.fsdp or mesh.tensor", "or take more chips"])


def mesh_text(mesh: Mesh) -> str:
    """The sizes of a mesh."""
    return " × ".join(f"{name} {size}" for name, size in mesh.shape.items())


def sharding_table(params: Any) -> Iterator[str]:
    """Parameter, shape, spec and bytes per device of abstract parameters, and the sum."""
    rows = [("parameter", "shape", "spec", "bytes per device")]
    for name, leaf in by_name(params).items():
        shape = "×".join(map(str, leaf.shape))
        spec = ", ".join(_axes(entry) for entry in leaf.sharding.spec)
        rows.append((name, shape, f"({spec})", f"{device_bytes(leaf):,}"))
    rows.append(("all", "", "", f"{device_bytes(params):,}"))
    return _aligned(rows, "<<<>")


def _axes(entry: Any) -> str:
    if entry is None:
        return "whole"
    return entry if isinstance(entry, str) else "+".join(entry)


def memory_tables(compiled: CompiledStep) -> Iterator[str]:
    """What lies in memory for long, and what each stage needs."""
    unit, size = _unit(held.bytes for held in compiled.held)
    yield f"In memory, {unit} per device"
    yield from _aligned(
        [(held.name, size(held.bytes), held.detail) for held in compiled.held], "<><"
    )
    if not compiled.stages:
        return
    yield ""
    unit, size = _unit(stage.peak for stage in compiled.stages)
    yield f"Stages, {unit} per device"
    rows: list[tuple[str, ...]] = [
        ("stage", "times", "arguments", "outputs", "temporaries", "others alive", "peak")
    ]
    for s in compiled.stages:
        sizes = (s.arguments, s.outputs, s.temporaries, s.others, s.peak)
        rows.append((s.name, str(s.times), *map(size, sizes)))
    yield from _aligned(rows, "<>>>>>>")
    for stage in compiled.stages:
        yield from (f"  {stage.name}: {remark}" for remark in stage.remarks)


def collective_table(stages: Sequence[CompiledStage], node: Callable[[int], int]) -> Iterator[str]:
    """The collectives of a step by stage and kind."""
    counts: Counter = Counter()
    sent: dict[tuple[str, ...], float] = defaultdict(float)
    for stage in stages:
        for found in stage.collectives:
            key = (stage.name, found.kind, "between nodes" if found.crosses(node) else "")
            counts[key] += stage.times * found.count
            sent[key] += stage.times * found.sent
    unit, size = _unit(sent.values())
    yield f"Collectives of a step, per device{'' if counts else ': none'}"
    if counts:
        rows = [("stage", "kind", "", "count", f"{unit} sent")]
        rows += [(*key, f"{counts[key]:,}", size(sent[key])) for key in counts if counts[key]]
        yield from _aligned(rows, "<<<>>")


def roofline_table(parts: Sequence[Roofline], chip: Chip) -> Iterator[str]:
    """The least time of a step, by part, and what bounds it."""
    speeds = f"{chip.flops / 1e12:.0f} TFLOP/s, {chip.bandwidth / 1e9:.0f} GB/s of HBM"
    network = f", {chip.network / 1e9:.0f} GB/s between nodes" if chip.network else ""
    yield f"At the least, per device ({speeds}, {chip.link / 1e9:.0f} GB/s of links{network})"
    rows: list[tuple[str, ...]] = [("part", "TFLOP", "GB of HBM", "GB sent", "seconds", "bound")]
    for part in parts:
        numbers = (part.flops / 1e12, part.bytes / 1e9, part.sent / 1e9, part.time)
        rows.append((part.name, *map(_number, numbers), part.bound))
    rows.append(("step", "", "", "", _number(sum(part.time for part in parts)), ""))
    yield from _aligned(rows, "<>>>><")


def conclusion(
    compiled: CompiledStep,
    refused: OutOfMemory | None,
    topology: Topology,
    advice: Callable[[str], str],
) -> tuple[bool, str]:
    """Whether a step fits, and the line that says so."""
    chip = topology.chip
    limit = chip.usable()
    if refused is None and compiled.worst.peak <= limit:
        return True, f"fits: peak {_gib_text(compiled.worst.peak)} of {_gib_text(limit)} GiB"
    name = refused.stage if refused else compiled.worst.name
    peak = refused.needed if refused else compiled.worst.peak
    needed = f"peak {_gib_text(peak)} of" if peak else "more than"
    line = f"does not fit: {needed} {_gib_text(limit)} GiB in {name}; {advice(name)}"
    if chip.platform == "cuda" and limit < peak < chip.memory:
        line += f", or give JAX more of the memory ({GPU_SHARE})"
    return False, line


def _gib_text(size: float) -> str:
    return f"{size / GIB:,.2f}"


def _unit(sizes: Iterable[float]) -> tuple[str, Callable[[float], str]]:
    """A unit that suits these bytes, and sizes as text in it."""
    name, unit = ("GiB", GIB) if max(sizes, default=0) >= GIB / 4 else ("MiB", GIB / 1024)
    return name, lambda size: f"{size / unit:,.2f}"


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _aligned(rows: Iterable[Sequence[str]], sides: str) -> Iterator[str]:
    """Rows of text as columns, each on its side of `sides`: "<" or ">"."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, sides, widths, strict=True)
        yield ("  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells)).rstrip()
