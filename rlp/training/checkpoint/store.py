"""The checkpoints of the run that is training: saved in the background, restored to resume."""

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

COMMIT_TIMEOUT_S = 24 * 3600  # a process that dies meanwhile is noticed otherwise


class Checkpoints:
    """The checkpoints of one run: the latest `keep` steps, and the best step by a held-out figure.

    Opening it clears what a killed process left behind, and moves damaged steps aside. A damaged
    step gives one line in the log, as a warning, and in `warnings`. One run at a time may hold a
    directory open. Use it as a context manager, or call `close`.

    Of several processes all make the same calls, and each writes and reads its own shards; the
    first one does everything else in the folder, while the others wait, and has the warnings.
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
        """Opens `directory`, making it if need be.

        Args:
          directory: `<workdir>/checkpoints`.
          keep: latest steps that are kept; at least 1.
          best_metric: name of the held-out figure that picks the best step, which is kept besides
            the latest; "" keeps no best step.
          lower_is_better: whether the best figure is the lowest.
          may_write: is called before a checkpoint takes its name, and raises if it must not.
        """
        if keep < 1:
            raise UserError(f"checkpoint.keep is {keep}; keep at least 1 checkpoint")
        self._directory = Path(directory).absolute()
        self._best_metric = best_metric
        self._lower_is_better = lower_is_better
        self._may_write = may_write
        self._pending: tuple[int, dict[str, Any] | None] | None = None
        self._saving: orbax.AsyncResponse[bool] | None = None
        self.warnings: list[str] = []
        with self._writing():
            hosts.agree(self._tidy)
            self._orbax = self._opened(keep)

    def _opened(self, keep: int) -> orbax.training.Checkpointer:
        """Orbax's view of the directory."""
        context = orbax_context()
        # A lambda, for Orbax deep-copies its options, and with a bound method this object.
        context.async_options.post_finalization_callback = lambda: self._before_commit()
        # The others wait for the first process, which reads every byte for the manifest.
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
        """The steps that are saved and committed, rising."""
        return folders.saved_steps(self._directory)

    def save(
        self, step: int, items: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves `items` as `step` in the background; a step saved before is replaced.

        Returns when the caller may donate, delete or change everything it passed. Waits for the
        save before this one, and raises what went wrong with it; where that was the disk, as a
        UserError. What was saved before is whole then.

        Args:
          step: optimizer steps taken.
          items: name → tree of arrays; "data" and "meta" are JSON values instead (dicts of
            numbers and strings), and come back as JSON does.
          metrics: held-out figures of this step, `best_metric` among them; None if it was not
            evaluated (a step that was saved before keeps the figure it has). A figure that is not
            finite never makes a step the best.
        """
        if "step" in items:
            raise ValueError("the item `step` is written by save itself")
        # Orbax encodes JSON later, in its thread: give it a copy that nobody changes.
        copies = {name: json.loads(json.dumps(items[name])) for name in JSON_ITEMS if name in items}
        figure = self._figure(metrics)
        self.wait()
        with self._writing():
            if replaced := hosts.agree(lambda: self._make_room(step)):
                figure = replaced["figure"] if metrics is None else figure
                self._orbax.reload()
            self._pending = (step, figure)
            self._saving = self._orbax.save_checkpointables_async(
                step, {**items, **copies, "step": step}, force=True, metrics=figure
            )

    def restore(self, abstract_items: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Loads the newest checkpoint that is whole, bit for bit as it was saved.

        Damaged ones on the way are moved aside, with a warning, so that their steps can be saved
        again.

        Args:
          abstract_items: name → tree of `jax.ShapeDtypeStruct`. An array lands on the sharding of
            its struct, whatever mesh wrote it; without a sharding, on the first device.

        Returns:
          (step, items): the items asked for, and "data" and "meta" where they were saved. None if
          nothing was ever saved.

        Raises:
          UserError: every checkpoint is damaged, or the checkpoint does not fit `abstract_items`.
        """
        self.wait()
        step = hosts.agree(self._newest_whole)
        self._orbax.reload()
        if step is None:
            return None
        return step, load_items(self._directory / str(step), abstract_items, JSON_ITEMS)

    def wait(self) -> None:
        """Waits until the save under way is committed; raises what went wrong with it."""
        with self._writing():
            self._collect()
            hosts.agree(lambda: folders.clear_leftovers(self._directory))

    def _collect(self) -> None:
        """Waits for the save under way, and frees what Orbax holds for it.

        The response of a save owns a thread with an event loop, three descriptors. Only `result`
        ends them; `Checkpointer.wait` leaves them, and so does dropping the response.
        """
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.result()
        finally:
            self._orbax.wait()  # raises the same error, once in this thread: not in a later save

    def close(self) -> None:
        """Waits for the save under way and lets go of the directory."""
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
        elif (
            hosts.count() == 1
        ):  # the others, whom the error did not reach, could not be waited for
            try:
                self.close()
            except UserError as failure:  # the error that came first is the one to show
                logging.warning("%s", failure)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """While entered, an error of the disk becomes one line with its cure."""
        with disk_errors.writing(self._directory, disk_errors.RESUME):
            yield

    def _tidy(self) -> None:
        """Makes the directory, or clears what a killed run left there and moves damage aside."""
        self._directory.mkdir(parents=True, exist_ok=True)
        folders.clear_leftovers(self._directory)
        for step in self.steps:
            folder = self._directory / str(step)
            # Sizes of all files; contents of the figures, for Orbax is about to read those.
            fault = folders.find_fault(folder) or folders.find_fault(
                folder, items=("metrics",), contents=True
            )
            if fault:
                self._set_aside(step, fault)

    def _make_room(self, step: int) -> dict[str, Any] | None:
        """Moves the step that is about to be saved again out of its name; {"figure": its own}.

        None if there is no such step.
        """
        if step not in self.steps:
            return None
        folder = self._directory / str(step)
        whole = not folders.find_fault(folder)
        figure = folders.read_manifest(folder)["figure"] if whole else None
        folder.rename(folder.with_name(folder.name + folders.REPLACED))
        return {"figure": figure}

    def _newest_whole(self) -> int | None:
        """The newest step that is whole; damaged ones above it are moved aside."""
        for step in reversed(self.steps):
            fault = folders.find_fault(self._directory / str(step), contents=True)
            if fault is None:
                return step
            self._set_aside(step, fault)
        damaged = self._directory / folders.DAMAGED
        if damaged.exists():
            raise UserError(
                f"every checkpoint in {self._directory} is damaged; to start again from step 0, "
                f"delete {damaged}"
            )
        return None

    def _before_commit(self) -> None:
        """Writes the manifest. Orbax calls this when all is written, before it renames."""
        assert self._pending is not None
        self._may_write()
        step, figure = self._pending
        folders.write_manifest(self._directory / f"{step}{folders.UNFINISHED}", step, figure)

    def _figure(self, metrics: Mapping[str, float] | None) -> dict[str, Any] | None:
        """What the best step is picked by, as it is stored; None if this step has no say."""
        if metrics is None or not self._best_metric:
            return None
        if self._best_metric not in metrics:
            raise UserError(
                f"evaluation.best_metric is {self._best_metric!r}, which is not a held-out figure; "
                f"choose one of {', '.join(sorted(metrics))}"
            )
        value = float(metrics[self._best_metric])
        if not math.isfinite(value):
            return None
        lower = self._lower_is_better
        return {"name": self._best_metric, "value": value, "lower_is_better": lower}

    def _goodness(self, figure: Mapping[str, Any]) -> float:
        """The higher the better. A figure of another name, from another config, is the worst."""
        if figure["name"] != self._best_metric:
            return -math.inf
        return -figure["value"] if self._lower_is_better else figure["value"]

    def _set_aside(self, step: int, fault: str) -> None:
        """Moves a damaged step out of the way and says so."""
        target = self._directory / folders.DAMAGED / str(step)
        target.parent.mkdir(exist_ok=True)
        folders.remove(target)
        (self._directory / str(step)).rename(target)
        line = f"checkpoint {step} is damaged ({fault}); left out, and moved to {target}"
        logging.warning("%s", line)
        self.warnings.append(line)
