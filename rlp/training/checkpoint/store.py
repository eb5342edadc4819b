"""The checkpoints of the run that is training: saved asynchronously, restored to resume."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from absl import logging
from orbax.checkpoint import v1 as orbax

from rlp.runtime import disk_errors, hosts
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import folder as folders
from rlp.training.checkpoint.load import JSON_ITEMS, load_items, orbax_context

COMMIT_TIMEOUT_S = 24 * 3600  # the death of a process is detected in other ways


class Checkpoints:
    """The checkpoints of one run: the latest `keep` steps, and the best step by a held-out metric.

    The constructor removes leftovers of a killed process, and moves damaged steps aside. Every
    damaged step is logged as a warning and added to `warnings`. Only one run at a time may open a
    directory. Use it as a context manager, or call `close`.

    With several processes, all of them must make the same calls. Each reads and writes its shards;
    process 0 does everything else in the folder while the others wait, and has the warnings.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 2,
        best_metric: str = "",
        lower_is_better: bool = True,
        may_write: Callable[[], object] = lambda: None,
    ):
        """Open `directory`, and create it if it does not exist.

        Args:
          directory: `<workdir>/checkpoints`.
          keep: number of latest steps to keep, at least 1.
          best_metric: name of the held-out metric of the best step, which is kept besides the
            latest ones; "" for no best step.
          lower_is_better: whether the lowest metric is the best.
          may_write: is called before a checkpoint is committed; raises if it must not be.

        Raises:
          UserError: If `keep` is below 1, or the disk fails.
        """
        if keep < 1:
            raise UserError(f"checkpoint.keep={keep}; set it to 1 or more")
        self._directory = Path(directory).absolute()
        self._best_metric = best_metric
        self._lower_is_better = lower_is_better
        self._may_write = may_write
        self._pending: tuple[int, dict[str, Any] | None] | None = None
        self._saving: orbax.AsyncResponse[bool] | None = None
        self.warnings: list[str] = []
        with self._writing():
            hosts.agree(self._prepare_folder)
            self._orbax = self._open_orbax(keep)

    def _open_orbax(self, keep: int) -> orbax.training.Checkpointer:
        """Return Orbax's checkpointer of the directory."""
        context = orbax_context()
        # A lambda, since Orbax deep-copies its options: a bound method would copy this object.
        context.async_options.post_finalization_callback = lambda: self._before_commit()
        # The other processes wait for process 0, which reads every byte for the manifest.
        context.async_options.timeout_secs = COMMIT_TIMEOUT_S
        policies = orbax.training.preservation_policies
        best = policies.BestN(
            n=1, get_metric_fn=self._goodness, keep_checkpoints_without_metrics=False
        )
        return orbax.training.Checkpointer(
            self._directory,
            context=context,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        )

    @property
    def steps(self) -> list[int]:
        """The committed steps, ascending."""
        return folders.saved_steps(self._directory)

    def save(
        self, step: int, items: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Save `items` as `step` asynchronously; an existing checkpoint of the step is replaced.

        When it returns, the caller may donate, delete or change all arguments. It waits for the
        previous save and raises its error. Earlier checkpoints stay intact in that case.

        Args:
          step: number of steps taken.
          items: from name to a tree of arrays; "data" and "meta" are JSON values instead (dicts of
            numbers and strings), and are restored as such.
          metrics: held-out metrics of this step, `best_metric` among them; None if it was not
            evaluated (an existing checkpoint of the step keeps its metric). A step whose metric is
            not finite is never the best.

        Raises:
          UserError: If the disk fails, or `best_metric` is not one of the metrics.
        """
        if "step" in items:
            raise ValueError("`save` writes the item `step` itself; remove it from `items`")
        # Orbax encodes JSON later in its thread, so it gets a copy that does not change.
        copies = {name: json.loads(json.dumps(items[name])) for name in JSON_ITEMS if name in items}
        metric = self._best_metric_of(metrics)
        self.wait()
        with self._writing():
            if replaced := hosts.agree(lambda: self._set_replaced(step)):
                metric = replaced["metric"] if metrics is None else metric
                self._orbax.reload()
            self._pending = (step, metric)
            self._saving = self._orbax.save_checkpointables_async(
                step, {**items, **copies, "step": step}, force=True, metrics=metric
            )

    def restore(self, abstract_items: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Load the newest checkpoint that is not damaged, bit for bit as it was saved.

        Newer, damaged ones are moved aside with a warning, so that their steps can be saved again.

        Args:
          abstract_items: from name to a tree of `jax.ShapeDtypeStruct`. Arrays are loaded with the
            shardings of their structs, whatever mesh they were saved from; without a sharding, onto
            the first device.

        Returns:
          The step, and the items, with "data" and "meta" if they were saved. None if there is no
          checkpoint.

        Raises:
          UserError: If every checkpoint is damaged, or if a tree or shape differs from
            `abstract_items`.
        """
        self.wait()
        step = hosts.agree(self._newest_intact)
        self._orbax.reload()
        if step is None:
            return None
        return step, load_items(self._directory / str(step), abstract_items, JSON_ITEMS)

    def wait(self) -> None:
        """Wait until the save in progress is committed; raises its error."""
        with self._writing():
            self._collect()
            hosts.agree(lambda: folders.clear_leftovers(self._directory))

    def _collect(self) -> None:
        """Wait for the save in progress, and free Orbax's resources for it.

        The response of a save owns a thread and an event loop with three file descriptors. Only
        `result` frees them; `Checkpointer.wait` and deleting the response do not.
        """
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.result()
        finally:
            self._orbax.wait()  # raises the same error here once, so that a later save does not

    def close(self) -> None:
        """Wait for the save in progress, and close the directory."""
        self.wait()
        with self._writing():
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif hosts.count() == 1:  # with several processes, the others do not take part in `close`
            try:
                self.close()
            except UserError as failure:  # the first error propagates
                logging.warning("%s", failure)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the disk into a UserError: one line with a cure."""
        with disk_errors.writing(self._directory, disk_errors.RESUME):
            yield

    def _prepare_folder(self) -> None:
        """Create the directory, or remove leftovers in it and move damaged steps aside."""
        self._directory.mkdir(parents=True, exist_ok=True)
        folders.clear_leftovers(self._directory)
        for step in self.steps:
            folder = self._directory / str(step)
            # Sizes of all files, and checksums of the metrics, which Orbax reads next.
            fault = folders.find_fault(folder) or folders.find_fault(
                folder, items=("metrics",), contents=True
            )
            if fault:
                self._set_aside(step, fault)

    def _set_replaced(self, step: int) -> dict[str, Any] | None:
        """Rename the checkpoint of a step that is saved again.

        Returns:
          {"metric": the metric of the old checkpoint}; None if there is none of this step.
        """
        if step not in self.steps:
            return None
        folder = self._directory / str(step)
        intact = not folders.find_fault(folder)
        metric = folders.read_manifest(folder)["figure"] if intact else None
        folder.rename(folder.with_name(folder.name + folders.REPLACED))
        return {"metric": metric}

    def _newest_intact(self) -> int | None:
        """Return the newest step that is not damaged; newer, damaged ones are moved aside."""
        for step in reversed(self.steps):
            fault = folders.find_fault(self._directory / str(step), contents=True)
            if fault is None:
                return step
            self._set_aside(step, fault)
        damaged = self._directory / folders.DAMAGED
        if damaged.exists():
            raise UserError(
                f"every checkpoint in {self._directory} is damaged; delete {damaged} to start "
                "again from step 0"
            )
        return None

    def _before_commit(self) -> None:
        """Write the manifest. Orbax calls this when all files are written, before the rename."""
        assert self._pending is not None
        self._may_write()
        step, metric = self._pending
        folders.write_manifest(self._directory / f"{step}{folders.UNFINISHED}", step, metric)

    def _best_metric_of(self, metrics: Mapping[str, float] | None) -> dict[str, Any] | None:
        """Return the metric of a step as it is stored; None if the step cannot be the best."""
        if metrics is None or not self._best_metric:
            return None
        if self._best_metric not in metrics:
            raise UserError(
                f"evaluation.best_metric={self._best_metric!r} is not a held-out metric; use one "
                f"of {', '.join(sorted(metrics))}"
            )
        value = float(metrics[self._best_metric])
        if not math.isfinite(value):
            return None
        lower = self._lower_is_better
        return {"name": self._best_metric, "value": value, "lower_is_better": lower}

    def _goodness(self, metric: Mapping[str, Any]) -> float:
        """Return a number that is higher for better metrics; -inf for those of another name."""
        if metric["name"] != self._best_metric:
            return -math.inf
        return -metric["value"] if self._lower_is_better else metric["value"]

    def _set_aside(self, step: int, fault: str) -> None:
        """Move a damaged step to the folder `damaged`, and log a warning."""
        target = self._directory / folders.DAMAGED / str(step)
        target.parent.mkdir(exist_ok=True)
        folders.remove(target)
        (self._directory / str(step)).rename(target)
        line = f"checkpoint {step} is damaged ({fault}); moved to {target}"
        logging.warning("%s", line)
        self.warnings.append(line)
