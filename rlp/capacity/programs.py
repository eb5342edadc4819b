"""Compile a program of a step ahead of time, and record its memory and collectives.

The peak memory of a stage is that of its program, as the compiler reports it, plus other live
arrays, which the caller names.
"""

import dataclasses
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from models.backend import compiling_for
from rlp.capacity.hlo import Collective, collectives
from rlp.engine.placement import device_bytes, placed
from rlp.runtime.errors import is_out_of_memory

REMATERIALIZED = re.compile(
    r"Involuntary full rematerialization.*? for HLO operation %?(?P<operation>[\w.-]+)"
    r'(?:.*?op_name="(?P<name>[^"]*)")?'
)


@dataclasses.dataclass(frozen=True)
class CompiledStage:
    """A compiled stage. Bytes are per device.

    Attributes:
      name: of the stage.
      phase: of the step that its time counts toward.
      times: runs per step.
      arguments, outputs, temporaries: bytes; outputs in donated buffers are not counted.
      others: bytes of live arrays that are not arguments.
      collectives: of one run.
      remarks: the compiler's warnings about shardings that it could not keep.
      seconds: of compilation.
    """

    name: str
    phase: str
    times: int
    arguments: int
    outputs: int
    temporaries: int
    others: int
    collectives: tuple[Collective, ...]
    remarks: tuple[str, ...]
    seconds: float

    @property
    def peak(self) -> int:
        """Peak memory, in bytes."""
        return self.arguments + self.outputs + self.temporaries + self.others


@dataclasses.dataclass(frozen=True)
class Held:
    """Arrays that outlive a stage: bytes per device, and a description."""

    name: str
    bytes: int
    detail: str = ""


class OutOfMemory(Exception):  # noqa: N818  a result of the compiler, not an error of the program
    """The compiler could not fit a stage into the memory of a device.

    Attributes:
      stage: name of the stage.
      needed: bytes per device that it needs; 0 if the compiler does not report them.
    """

    def __init__(self, stage: str, needed: int):
        super().__init__(stage)
        self.stage, self.needed = stage, needed


@dataclasses.dataclass
class CompiledStep:
    """The results of compiling a step; a `Compiler` fills it."""

    stages: list[CompiledStage] = dataclasses.field(default_factory=list)
    held: list[Held] = dataclasses.field(default_factory=list)

    def hold(self, name: str, tree: Any, detail: str) -> None:
        """Record arrays that outlive a stage."""
        self.held.append(Held(name, device_bytes(tree), detail))

    def add_others(self, size: int, *names: str) -> None:
        """Add `size` bytes to the other live arrays of the stages with these names."""
        more = lambda stage: dataclasses.replace(stage, others=stage.others + size)
        self.stages = [more(stage) if stage.name in names else stage for stage in self.stages]

    @property
    def worst(self) -> CompiledStage:
        """The stage with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak)


@dataclasses.dataclass(frozen=True)
class Compiler:
    """Compiles stages for the devices of a mesh, and records their memory and collectives.

    Attributes:
      mesh: over the devices.
      compiled: the results are added to it.
      log: is called with lines of progress.
    """

    mesh: Mesh
    compiled: CompiledStep
    log: Callable[[str], None]

    def stage(
        self,
        name: str,
        phase: str,
        program: Any,
        *arguments: Any,
        times: int = 1,
        steps: int = 1,
        alive: Any = (),
        **static: Any,
    ) -> Any:
        """Compile a jitted program; return the shapes and shardings of its outputs.

        Args:
          name, phase, times: as in `CompiledStage`.
          program: the jitted function.
          *arguments: shapes with shardings, or numbers.
          steps: of its decode loop.
          alive: tree of all live arrays, which may include arguments.
          **static: static arguments.

        Raises:
          OutOfMemory: If the program does not fit into the memory of a device.
        """
        self.log(f"compiling {name}")
        start = time.perf_counter()
        lowered = program.lower(*arguments, **static)
        try:
            with compiler_log() as lines:
                compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                print(*lines, sep="\n", file=sys.stderr)
                raise
            raise OutOfMemory(name, _needed_bytes(str(error))) from error
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        counted = {id(leaf) for leaf in jax.tree.leaves(arguments)}
        stage = CompiledStage(
            name=name,
            phase=phase,
            times=times,
            arguments=max(memory.argument_size_in_bytes, device_bytes(arguments)),
            outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
            temporaries=memory.temp_size_in_bytes,
            others=device_bytes(alive, without=counted),
            collectives=tuple(collectives(compiled.as_text(), self.mesh.size, steps)),
            remarks=tuple(remark for line in lines if (remark := _remark(line))),
            seconds=seconds,
        )
        self.compiled.stages.append(stage)
        self.log(f"compiled {name} in {seconds:.0f} s: peak {stage.peak / 2**30:.2f} GiB")
        return placed(lowered.out_info, compiled.output_shardings)


def _remark(line: str) -> str | None:
    """Return the warning of a log line about a sharding that the compiler could not keep."""
    if match := REMATERIALIZED.search(line):
        where = match["name"] or match["operation"]
        return f"Involuntary full rematerialization of {where}"
    return None


def _needed_bytes(message: str) -> int:
    """Return the first size in a compiler's out-of-memory error, in bytes; 0 if there is none."""
    match = re.search(r"(?:Used|total memory required[^(]*\()\s*([\d.]+)([KMGT])", message)
    return int(float(match[1]) * 2 ** (10 * (" KMGT".index(match[2])))) if match else 0


@contextmanager
def compiler_log() -> Iterator[list[str]]:
    """Capture the lines that XLA writes to stderr; the list is complete when the block ends."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines += file.read().splitlines()


@contextmanager
def tracing_for(mesh: Mesh, platform: str) -> Iterator[None]:
    """Trace for the devices of a mesh of another platform."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), compiling_for(platform):
        yield
