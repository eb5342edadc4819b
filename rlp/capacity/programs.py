"""One program of a step, compiled for devices that need not be there, and what it needs of them.

What a stage needs at its worst moment is what its program needs, by the compiler's own account, and
whatever else is alive then, which its caller knows.
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

REMATERIALIZED = re.compile(
    r"Involuntary full rematerialization.*? for HLO operation %?(?P<operation>[\w.-]+)"
    r'(?:.*?op_name="(?P<name>[^"]*)")?'
)


@dataclasses.dataclass(frozen=True)
class CompiledStage:
    """A compiled stage. Bytes are those of one device.

    Attributes:
      name: of the stage.
      phase: of the step that its time is counted under.
      times: how often a step runs it.
      arguments, outputs, temporaries: bytes; outputs that take an argument's place are left out.
      others: bytes of what is alive meanwhile and is no argument.
      collectives: of one run.
      remarks: what the compiler's log says about sharding that it could not keep.
      seconds: that compiling took.
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
        """Bytes at the worst moment."""
        return self.arguments + self.outputs + self.temporaries + self.others


@dataclasses.dataclass(frozen=True)
class Held:
    """Something that lies in memory for long: bytes of one device, and what they are."""

    name: str
    bytes: int
    detail: str = ""


class OutOfMemory(Exception):  # noqa: N818  not a failure of the program, but its answer
    """The compiler found no way to run a stage in the memory that there is.

    Attributes:
      stage: its name.
      needed: bytes of a device that it asked for; 0 if it did not say.
    """

    def __init__(self, stage: str, needed: int):
        super().__init__(stage)
        self.stage, self.needed = stage, needed


@dataclasses.dataclass
class CompiledStep:
    """What is known of a step compiled for some devices; filled by a `Compiler`."""

    stages: list[CompiledStage] = dataclasses.field(default_factory=list)
    held: list[Held] = dataclasses.field(default_factory=list)

    def hold(self, name: str, tree: Any, detail: str) -> None:
        """Writes down something that lies in memory for long."""
        self.held.append(Held(name, device_bytes(tree), detail))

    def beside(self, size: int, *names: str) -> None:
        """So many bytes more are alive beside the stages of these names."""
        more = lambda stage: dataclasses.replace(stage, others=stage.others + size)
        self.stages = [more(stage) if stage.name in names else stage for stage in self.stages]

    @property
    def worst(self) -> CompiledStage:
        """The stage with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak)


@dataclasses.dataclass(frozen=True)
class Compiler:
    """Compiles stages for the devices of a mesh and writes down what they need.

    Attributes:
      mesh: over the devices.
      compiled: takes what is found.
      tell: is called with a line of progress.
    """

    mesh: Mesh
    compiled: CompiledStep
    tell: Callable[[str], None]

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
        """Compiles a jitted program; shapes and placements of what it gives.

        Args:
          arguments: shapes with placements, or numbers.
          steps: of its decode loop.
          alive: what is alive meanwhile, arguments or not.

        Raises:
          OutOfMemory: the compiler says that the devices' memory does not do.
        """
        self.tell(f"compiling {name}")
        start = time.perf_counter()
        lowered = program.lower(*arguments, **static)
        try:
            with compiler_log() as log:
                compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                print(*log, sep="\n", file=sys.stderr)
                raise
            raise OutOfMemory(name, _asked_for(str(error))) from error
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        mine = {id(leaf) for leaf in jax.tree.leaves(arguments)}
        found = CompiledStage(
            name=name,
            phase=phase,
            times=times,
            arguments=max(memory.argument_size_in_bytes, device_bytes(arguments)),
            outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
            temporaries=memory.temp_size_in_bytes,
            others=device_bytes(alive, without=mine),
            collectives=tuple(collectives(compiled.as_text(), self.mesh.size, steps)),
            remarks=tuple(found for line in log if (found := _remark(line))),
            seconds=seconds,
        )
        self.compiled.stages.append(found)
        self.tell(f"compiled {name} in {seconds:.0f} s: peak {found.peak / 2**30:.2f} GiB")
        return placed(lowered.out_info, compiled.output_shardings)


def _remark(line: str) -> str | None:
    """What a line of the log says about sharding that the compiler could not keep."""
    if found := REMATERIALIZED.search(line):
        where = found["name"] or found["operation"]
        return f"Involuntary full rematerialization of {where}"
    return None


def _asked_for(message: str) -> int:
    """Bytes that a compiler's complaint names first; 0 if it names none."""
    found = re.search(r"(?:Used|total memory required[^(]*\()\s*([\d.]+)([KMGT])", message)
    return int(float(found[1]) * 2 ** (10 * (" KMGT".index(found[2])))) if found else 0


@contextmanager
def compiler_log() -> Iterator[list[str]]:
    """The lines that XLA writes to stderr meanwhile; they are complete when the block ends."""
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
    """Within it, what is traced is meant for the devices of a mesh that need not be there."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), compiling_for(platform):
        yield
