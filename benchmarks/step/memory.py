"""What is in memory during a step, from the compiled programs of its stages.

`launch.compile` prints the same tables for a run on accelerators; these are for this machine.
"""

import sys
from collections.abc import Iterator

import jax

from benchmarks.step.product import make_case
from benchmarks.step.workload import Workload
from models.sharding import make_mesh
from rlp.capacity.compiled_stages import compile_stages
from rlp.capacity.programs import CompiledStep, Compiler
from rlp.capacity.step_spec import StepSpec
from rlp.capacity.summary import memory_tables


def tables(sizes: Workload) -> Iterator[str]:
    """Compile the stages of a workload's step; yield the lines of the tables of its live arrays and
    of the memory of each stage. Nothing is run."""
    return memory_tables(compiled_step(sizes))


def compiled_step(sizes: Workload) -> CompiledStep:
    """Compile the stages of a workload's step for the first device of this machine."""
    case, mesh = make_case(sizes), make_mesh(devices=jax.devices()[:1])
    spec = StepSpec(
        model=case.model,
        settings=case.settings,
        vocabulary=case.vocabulary,
        optimizer=case.optimizer,
        mesh=mesh,
        rows=sizes.docs,
        length=sizes.length,
    )
    compiled = CompiledStep()
    log = lambda line: print(line, file=sys.stderr, flush=True)
    compile_stages(Compiler(mesh, compiled, log), spec)
    return compiled
