"""The base of all trainers: run the stages of a unit, and measure the time of each phase."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from rlp.data.rows import Rows
from rlp.engine import nonfinite
from rlp.engine.stages import Setup, Values, of_unit, placements, stages_of
from rlp.engine.step import TrainState
from rlp.runtime.errors import is_out_of_memory
from rlp.training.cost import Cost


class Trainer(Protocol):
    """Takes training steps of an objective.

    Attributes:
      fault: describes the first value that is not finite of the last step, or of the first one in a
        row of such steps, with a cure; "" if the last step is finite.
    """

    fault: str

    def step(
        self, state: TrainState, rows: Rows, key: jax.Array
    ) -> tuple[TrainState, dict[str, float], Cost]:
        """Take one step.

        Args:
          state: its buffers are donated.
          rows: B rows of the step.
          key: root PRNG key of the run.

        Returns:
          The new state, metrics by name, and the cost (tokens, FLOPs, seconds by phase).
        """


class Clock:
    """Measures seconds by phase. `with clock("x") as done: y = done(f())` waits for y."""

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
      setup: the configuration that the stages are compiled for.
      stages: of a step, in order.
      programs: jitted functions by stage name; subclasses add functions for work on the host.
      fault: as in `Trainer`.
    """

    def __init__(self, setup: Setup, shardings: TrainState):
        self.setup, self.stages, self.fault = setup, stages_of(setup), ""
        outputs = placements(setup, shardings)
        self.programs: dict[str, Callable] = {
            stage.name: stage.jit(setup, outputs) for stage in self.stages if stage.function
        }

    def find_fault(self, metrics: Mapping[str, float], search: Callable[[], str]) -> None:
        """Set `fault` after a step: to "" if its metrics are finite, else to what `search` finds.

        The search is long, so it runs once for bad steps in a row. It needs memory besides that of
        a step; if there is not enough, the fault names the metric only.
        """
        if not nonfinite.in_metrics(metrics):
            self.fault = ""
        elif not self.fault:
            try:
                self.fault = search()
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.fault = nonfinite.in_update(metrics)

    def run(self, unit: str, values: Values, clock: Clock) -> Values:
        """Run the stages of a unit; return `values` with their outputs.

        Stages of the phase "update" are dispatched asynchronously, and the caller waits for the
        last of them. All other stages are waited for.
        """
        for stage in of_unit(self.stages, unit):
            with clock(stage.phase) as done:
                with jax.profiler.TraceAnnotation(stage.name):
                    outputs = self.programs[stage.name](*stage.arguments(values))
                    if stage.phase != "update":
                        outputs = done(outputs)
                values = stage.results(values, outputs)
        return values


def to_host(values: Any) -> Any:
    """Return a tree of scalars as floats."""
    return jax.tree.map(float, jax.device_get(values))
