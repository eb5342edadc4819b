"""Writes what a run measures: metrics.jsonl, event files for TensorBoard, and warnings.json.

metrics.jsonl holds one JSON object a line and one line a step, its "step" first. A figure that is
not finite (nan, inf) is written as null, since JSON has no word for it: every reader then sees a
gap. A line is in the file, and in the event file, when `write` returns, so a run that is killed
loses at most the line it was writing. A line is in the file whole or not at all where the disk
refuses a part of it. warnings.json is a function of those lines, and so is the same however often a
run was stopped.
"""

import contextlib
import copy
import dataclasses
import errno
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from rlp.metrics import declared, metrics_file
from rlp.metrics.metric import Metric
from rlp.metrics.watch import Watch
from rlp.runtime import disk_errors, run_folder
from rlp.runtime.atomic_files import write_json
from rlp.runtime.display import tag
from rlp.runtime.strict_json import finite

LOGGER = logging.getLogger(__name__)


class Number(Protocol):
    """A Python number, or an array of one number, of numpy or jax."""

    def __float__(self) -> float: ...


class MetricsWriter:
    """Writes the figures of every step of a run; a context manager.

    Opening it takes back what was logged after the step that the run resumes from: metrics.jsonl is
    cut behind that step, TensorBoard is told to drop the events behind it, and warnings.json holds
    what the steps up to it gave. Lines up to that step that cannot be used are moved to
    metrics.damaged.jsonl, and a warning names the steps that are missing.
    """

    def __init__(
        self,
        workdir: str | Path,
        resume_step: int | None,
        watch: Watch | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Opens `workdir`/metrics.jsonl and a new event file in `workdir`/tensorboard.

        Args:
          workdir: folder of the run; made if need be.
          resume_step: the last step to keep of what is there; None keeps nothing.
          watch: gives the run's warnings, and has seen no step yet; None for a run without.
          metrics: those that the run has besides the catalogue's.

        Raises:
          UserError: metrics.jsonl is not a regular file, or the folder cannot be written.
        """
        self._workdir = Path(workdir)
        path, events = self._workdir / run_folder.METRICS, self._workdir / run_folder.TENSORBOARD
        last = -1 if resume_step is None else resume_step
        self._watch, self._warnings = watch, self._workdir / run_folder.WARNINGS
        self._step = last
        with disk_errors.writing(self._workdir, disk_errors.RESUME):
            self._end = self._resume(path, last)
            events.mkdir(parents=True, exist_ok=True)
            declared.record(metrics, self._workdir)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
            self._file.truncate(self._end)
            # Nanoseconds keep the files of two starts in one second apart, and in order.
            self._events = EventsWriter(str(events / "events"), f".{time.time_ns()}")
            restart = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=last + 1, session_log=restart)
            self._events.write_event(event)
            self._events.flush()
            self._keep_warnings()

    def _resume(self, path: Path, last: int) -> int:
        """Bytes of metrics.jsonl up to the end of step `last`, once it is repaired. The watch has
        seen these steps, and a warning has named what is missing."""
        there = os.path.lexists(path)
        if there:
            metrics_file.check(path)
        if not there or last < 1:
            self._warn_of_damage(0, metrics_file.missing([], last))
            return 0
        fresh, moved = copy.deepcopy(self._watch), 0
        found = self._scan(path, last)
        if found is None:
            moved = metrics_file.repair(path, last, self._workdir / run_folder.DAMAGED_METRICS)
            self._watch = fresh
            found = self._scan(path, last)
            assert found is not None
        end, missing = found
        self._warn_of_damage(moved, missing)
        return end

    def _scan(self, path: Path, last: int) -> tuple[int, list[metrics_file.Span]] | None:
        return metrics_file.scan(path, last, self._watch.add if self._watch else lambda row: None)

    def _warn_of_damage(self, moved: int, missing: list[metrics_file.Span]) -> None:
        """Warns of lines that were moved and of steps without a line."""
        path = self._workdir / run_folder.METRICS
        if moved:
            LOGGER.warning(
                "%s: %d line%s could not be used and now stand%s in %s",
                *(path, moved, "s" * (moved > 1), "s" * (moved == 1), run_folder.DAMAGED_METRICS),
            )
        if missing:
            LOGGER.warning(
                "%s: the metrics of %s are missing; the run resumes without them, and curves and "
                "warnings do not include them",
                *(path, metrics_file.in_words(missing)),
            )

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Writes the figures of one step, and logs the warnings that they give.

        Args:
          step: later than every step written before.
          values: name to number; names with a slash are grouped by TensorBoard.

        Raises:
          UserError: the disk refuses, for example because it is full.
        """
        if step <= self._step:
            raise ValueError(f"step {step} comes after step {self._step}, which is written already")
        numbers = {name: _plain(value) for name, value in values.items()}
        row = {"step": step, **finite(numbers)}
        scalars = [Summary.Value(tag=tag(name), simple_value=v) for name, v in numbers.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        with disk_errors.writing(self._workdir, disk_errors.RESUME):
            self._append((json.dumps(row, allow_nan=False) + "\n").encode())
            self._events.write_event(event)
            self._events.flush()
        self._step = step
        if self._watch and (new := self._watch.add(row)):
            for warning in new:
                LOGGER.warning("step %d, %s: %s", step, warning.name, warning.message)
            with disk_errors.writing(self._workdir, disk_errors.RESUME):
                self._keep_warnings()

    def _append(self, line: bytes) -> None:
        """Adds a line to metrics.jsonl, or leaves the file as it was. A disk that fills up takes a
        part of what it is given, and gives its error only when it is asked to take the rest."""
        left = line
        try:
            while left:
                taken = self._file.write(left)
                if not taken:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left = left[taken:]
        except OSError:
            with contextlib.suppress(OSError):  # the next start repairs what cannot be cut now
                self._file.truncate(self._end)
            raise
        self._end += len(line)

    def _keep_warnings(self) -> None:
        if self._watch:
            write_json(self._warnings, [dataclasses.asdict(given) for given in self._watch.given])

    def close(self) -> None:
        """Closes both files."""
        with disk_errors.writing(self._workdir, disk_errors.RESUME):
            self._file.close()
            self._events.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class NoMetrics:
    """The writer of a process that is not the first of several: writes nothing."""

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Does nothing."""

    def __enter__(self) -> "NoMetrics":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _plain(value: Number) -> int | float:
    return value if isinstance(value, int) else float(value)
