"""The printed tables: whether a step fits, and what to change if it does not."""

import dataclasses
import re

import jax
import pytest

from models.sharding import make_mesh
from rlp.capacity import compilers, summary
from rlp.capacity.chips import CHIPS, GIB, Topology, parse_topology
from rlp.capacity.programs import CompiledStage, CompiledStep, OutOfMemory
from rlp.capacity.step_spec import StepSpec
from rlp.engine.placement import abstract_params
from rlp.runtime.errors import UserError
from tests.support import tiny
from tests.support.engine import OPTIMIZER

MODEL = tiny.model_config()
V5E = parse_topology("v5e:2x2")


def case(**changes):
    settings = tiny.rlp_settings(**changes)
    mesh = make_mesh(1, -1, 1, devices=compilers.stand_ins(4))
    return StepSpec(MODEL, settings, tiny.words(MODEL), OPTIMIZER, mesh, rows=8, length=12)


def compiled(**gibs):
    """A compiled step; its stages have these arguments in GiB, and 1 GiB of other live arrays."""
    stage = lambda name, size: CompiledStage(name, "update", 1, size * GIB, 0, 0, GIB, (), (), 0.0)
    return CompiledStep([stage(name, size) for name, size in gibs.items()])


def conclusion(compiled, refused=None, topology=V5E, **changes):
    return summary.conclusion(
        compiled, refused, topology, lambda name: summary.advice(case(**changes), name)
    )


def test_the_worst_stage_decides():
    assert conclusion(compiled(read=3, update=12)) == (True, "fits: peak 13.00 of 15.75 GiB")
    fits, line = conclusion(compiled(read=15, update=12), max_branches_in_flight=32)
    assert not fits
    assert line.startswith("does not fit: peak 16.00 of 15.75 GiB in read; lower ")
    assert "rlp.max_branches_in_flight (a rollout batch has 32 thoughts)" in line


def test_each_stage_has_its_own_advice():
    fits, line = conclusion(compiled(read=3, update=20), update_micro_batch=8)
    assert not fits
    cure = "lower rlp.update_micro_batch (a micro-batch has 8 thoughts), set model.remat"
    assert f"in update; {cure}" in line


def test_what_is_as_small_as_it_can_be_is_not_to_be_lowered():
    """Four devices share the rows, so a rollout batch has at least four groups of four."""
    fits, line = conclusion(compiled(read=15, update=12), max_branches_in_flight=16)
    assert line.endswith("in read; raise mesh.fsdp or mesh.tensor, or use more chips")
    fits, line = conclusion(compiled(update=20), update_micro_batch=4)
    assert "micro_batch" not in line


@pytest.mark.parametrize(
    ("needed", "said"), [(20 * GIB, "peak 20.00 of 15.75 GiB"), (0, "more than 15.75 GiB")]
)
def test_a_compiler_that_refuses_has_the_last_word(needed, said):
    fits, line = conclusion(compiled(read=3), OutOfMemory("rollout", needed))
    assert not fits
    assert line.startswith(f"does not fit: {said} in rollout; lower rlp.max_branches_in_flight")


def test_jax_takes_a_share_of_a_gpu(monkeypatch):
    h200 = Topology(CHIPS["h200"], (1, 8))
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    fits, line = conclusion(compiled(update=119), topology=h200)
    assert not fits
    assert line.endswith(", or raise XLA_PYTHON_CLIENT_MEM_FRACTION")
    assert line.startswith("does not fit: peak 120.00 of 105.30 GiB")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert conclusion(compiled(update=119), topology=h200) == (
        True,
        "fits: peak 120.00 of 126.36 GiB",
    )
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "all")
    with pytest.raises(UserError, match="XLA_PYTHON_CLIENT_MEM_FRACTION='all'"):
        conclusion(compiled(update=119), topology=h200)


def test_what_the_compiler_could_not_keep_is_told():
    remark = "Involuntary full rematerialization. The compiler cannot go from A to B"
    step = compiled(update=1)
    step.stages[0] = dataclasses.replace(step.stages[0], remarks=(remark,))
    assert f"  update: {remark}" in list(summary.memory_tables(step))


def test_the_table_of_parameters_adds_up():
    mesh = make_mesh(1, 2, -1, devices=compilers.stand_ins(4))
    lines = list(summary.sharding_table(abstract_params(MODEL, mesh)))
    rows = [re.split(r" {2,}", line.strip()) for line in lines]
    assert rows[0] == ["parameter", "shape", "spec", "bytes per device"]
    assert ["embedding", "24×32", "(tensor, fsdp)", str(24 * 32 * 4 // 4)] in rows
    assert ["norm/scale", "32", "(replicated)", "128"] in rows
    numbers = [int(row[-1].replace(",", "")) for row in rows[1:]]
    assert len(rows) == 2 + len(jax.tree.leaves(abstract_params(MODEL, mesh)))
    assert numbers[-1] == sum(numbers[:-1])


@pytest.mark.parametrize(
    ("text", "devices", "platform"),
    [("v5p:4x4x4", 64, "tpu"), ("v6e:8x8", 64, "tpu"), ("h200:2x8", 16, "cuda")],
)
def test_topologies(text, devices, platform):
    topology = parse_topology(text)
    assert (topology.name, topology.devices, topology.chip.platform) == (text, devices, platform)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v9:2x2", "unknown chip 'v9'; use one of v4, v5e"),
        ("v5p", "v5p needs 3 sizes, such as v5p:4x4x4"),
        ("v5p:4x4", "v5p needs 3 sizes"),
        ("v5e:2x2x1", "v5e needs 2 sizes, such as v5e:4x4"),
        ("v5e:2x0", "v5e needs 2 sizes"),
        ("v5e:2x-1", "v5e needs 2 sizes"),
        ("h200:8", "h200 needs 2 sizes, such as h200:2x8"),
        ("h200:2x9", "at most 8 GPUs"),
    ],
)
def test_topologies_that_are_none(text, said):
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        parse_topology(text)
    assert f"--topology={text!r}" in str(refused.value)
