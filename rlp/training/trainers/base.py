"""What all trainers share: they run the stages of a unit, and measure the time of each phase."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from rlp.data.rows import Rows
from rlp.engine.stages import Setup, Values, of_unit, placements, stages_of
from rlp.engine.step import TrainState
from rlp.training.cost import Cost


class Trainer(Protocol):
    """Takes steps of one objective.

    Attributes:
      fault: which value of the last step is not finite, and what to do; "" if all are finite.
    """

    fault: str

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """One step. Consumes `state`; `key` is the root key of the run."""


class Clock:
    """Seconds by phase. `with clock("x") as done: y = done(f())` waits until y is computed."""

    def __init__(self, *phases: str):
        self.seconds = dict.fromkeys(phases, 0.0)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[Callable]:
        start = time.perf_counter()
        yield jax.block_until_ready
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


class StageRunner:
    """Runs the stages of a training step.

    Attributes:
      setup: what they are compiled for.
      stages: of a step, in order.
      programs: by the stages' names; of the host's work, functions of the subclass.
      fault: as of `Trainer`.
    """

    def __init__(self, setup: Setup, shardings: TrainState):
        self.setup, self.stages, self.fault = setup, stages_of(setup), ""
        places = placements(setup, shardings)
        self.programs: dict[str, Callable] = {
            stage.name: stage.jit(setup, places) for stage in self.stages if stage.function
        }

    def run(self, unit: str, values: Values, clock: Clock) -> Values:
        """`values` with what the stages of a unit make of them.

        It waits for each but those of the phase "update", which can be computed while the host
        asks for the next one; whoever measures that phase waits for the last of them.
        """
        for stage in of_unit(self.stages, unit):
            with clock(stage.phase) as done:
                with jax.profiler.TraceAnnotation(stage.name):
                    made = self.programs[stage.name](*stage.arguments(values))
                    made = made if stage.phase == "update" else done(made)
                values = stage.results(values, made)
        return values


def to_host(values: Any) -> Any:
    """A tree of numbers, as floats."""
    return jax.tree.map(float, jax.device_get(values))
