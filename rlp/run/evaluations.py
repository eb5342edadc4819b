"""What a run measures besides training: held-out rows, and benchmarks."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from configs.default import Evaluation
from models.transformer import Params
from rlp.data.batch import HeldOut
from rlp.run.assembly import RunParts
from rlp.run.training_suite import TrainingSuite
from rlp.runtime.fingerprints import Fingerprint
from rlp.runtime.preemption import Preemption
from rlp.runtime.progress import progress
from rlp.training.cost import Totals


class Evaluations:
    """The evaluations of a run. Their time is counted as `Totals.seconds_evaluate`."""

    def __init__(
        self, run: RunParts, preemption: Preemption, fields: Evaluation, key: jax.Array, name: str
    ) -> None:
        """Prepare the evaluations.

        Args:
          run: The run.
          preemption: Ends an evaluation when a signal arrives.
          fields: When the run is evaluated.
          key: PRNG key of held-out rows.
          name: The name of the run.
        """
        self._evaluator, self._suite, self._preemption = run.evaluator, run.suite, preemption
        self._fields, self._key, self._label = fields, key, f"{name} evaluation"

    @property
    def fingerprint(self) -> dict[str, Fingerprint]:
        """The fingerprint of the benchmarks, by config field."""
        return {} if self._suite is None else self._suite.fingerprint

    def due(self, step: int) -> bool:
        """Return whether a step before the last one is evaluated."""
        return self._held_out_due(step) or self._suite_due(step)

    def during(
        self, step: int, params: Params, held_out: HeldOut, totals: Totals
    ) -> dict[str, float]:
        """Return the metrics of a step before the last one.

        Raises:
          Preempted: If a signal arrives while benchmarks are evaluated.
        """
        return self._measured(
            params,
            held_out if self._held_out_due(step) else None,
            self._suite if self._suite_due(step) else None,
            totals,
            iter,
        )

    def at_end(self, params: Params, held_out: HeldOut, totals: Totals) -> dict[str, float]:
        """Return the metrics of the last step.

        Raises:
          Preempted: If a signal arrives.
        """
        return self._measured(params, held_out, self._suite, totals, self._watched)

    def _held_out_due(self, step: int) -> bool:
        return _is_multiple(step, self._fields.every)

    def _suite_due(self, step: int) -> bool:
        return self._suite is not None and _is_multiple(step, self._fields.suite_every)

    def _measured(
        self,
        params: Params,
        held_out: HeldOut | None,
        suite: TrainingSuite | None,
        totals: Totals,
        watch: Callable[[list], Iterable],
    ) -> dict[str, float]:
        """Return the metrics of what is given; `watch` is as in `Evaluator.evaluate`."""
        start = time.perf_counter()
        metrics: dict[str, float] = {}
        if held_out is not None:
            metrics |= self._evaluator.evaluate(params, held_out, self._key, watch)
        if suite is not None:
            metrics |= suite.evaluate(params, self._preemption.check)
        totals.seconds_evaluate += time.perf_counter() - start
        return metrics

    def _watched(self, batches: list) -> Iterator[Any]:
        """Yield batches under a progress bar; a signal stops it."""
        with progress(len(batches), 0, self._label, "batch") as bar:
            for batch in self._preemption.watch(batches):
                yield batch
                bar.update(1)


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
