"""A trace of some steps of a run, made with `jax.profiler`, in the run folder."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import jax

from rlp.runtime import disk_errors, hosts
from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)


class StepTrace:
    """Traces steps of a run; a context manager, so that an error in a step ends the trace.

    Of several processes only the first writes a trace. Without steps, it does nothing.
    """

    def __init__(self, steps: range, folder: Path) -> None:
        """Prepare to trace some steps.

        Args:
          steps: the numbers of the steps to trace; the first step of a run is 1.
          folder: where the profiler writes; made when the trace starts.
        """
        self._steps = steps if hosts.is_first() else range(0)
        self._folder, self._running, self._traced = folder, False, False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Trace the step that runs inside this context, if it is one of the steps."""
        if number not in self._steps:
            yield
            return
        if not self._running:
            with disk_errors.writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            try:
                jax.profiler.start_trace(str(self._folder))
            except RuntimeError as error:
                raise UserError(
                    f"profile.steps: a profiler is already active in this process ({error}); stop "
                    "it, or set profile.steps to ''"
                ) from error
            self._running = self._traced = True
        with jax.profiler.StepTraceAnnotation("step", step_num=number):
            yield
        if number == self._steps[-1]:
            self._stop()

    def _stop(self) -> None:
        """Write the trace."""
        if self._running:
            self._running = False
            with disk_errors.writing(self._folder):
                jax.profiler.stop_trace()

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if self._steps and not (self._traced or error):
            first, last = self._steps[0], self._steps[-1]
            LOGGER.warning(
                "steps %d to %d were not run, so profile.steps traced nothing", first, last
            )
