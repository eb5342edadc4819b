"""Write the metrics of a run: metrics.jsonl, TensorBoard event files and warnings.json.

metrics.jsonl has one JSON object per line and one line per step, with "step" first. A value that is
not finite (nan, inf) is written as null, because JSON cannot represent it. A line is in the file,
and in the event file, when `write` returns, so a killed run loses at most the line that it was
writing. If the disk accepts only part of a line, the line is removed again. warnings.json depends
only on these lines, so it is the same however often a run was interrupted.
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
    """A Python number, or a NumPy or JAX array with one element."""

    def __float__(self) -> float: ...


class MetricsWriter:
    """A context manager that writes the metrics of every step of a run.

    Opening it discards what was logged after the step that the run resumes from: metrics.jsonl is
    truncated after that step, TensorBoard drops later events, and warnings.json contains the
    warnings up to that step. Unusable lines up to that step are moved to metrics.damaged.jsonl, and
    a warning lists the missing steps.
    """

    def __init__(
        self,
        workdir: str | Path,
        resume_step: int | None,
        watch: Watch | None = None,
        metrics: Sequence[Metric] = (),
    ) -> None:
        """Open `workdir`/metrics.jsonl and a new event file in `workdir`/tensorboard.

        Args:
          workdir: The run folder; created if it does not exist.
          resume_step: The last step to keep; None keeps nothing.
          watch: Gives the warnings of the run, and has not seen any step yet; None for no warnings.
          metrics: The metrics that the run has in addition to those of the catalogue.

        Raises:
          UserError: If metrics.jsonl is not a regular file, or the folder is not writable.
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
            # Nanoseconds give two starts within one second distinct files, in the right order.
            self._events = EventsWriter(str(events / "events"), f".{time.time_ns()}")
            restart = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=last + 1, session_log=restart)
            self._events.write_event(event)
            self._events.flush()
            self._write_warnings()

    def _resume(self, path: Path, last: int) -> int:
        """Repair metrics.jsonl if necessary, and return the byte offset where step `last` ends.

        Feeds the steps up to it to the watch, and logs which steps are missing.
        """
        exists = os.path.lexists(path)
        if exists:
            metrics_file.check(path)
        if not exists or last < 1:
            self._warn_of_damage(0, metrics_file.missing([], last))
            return 0
        fresh, moved = copy.deepcopy(self._watch), 0
        scanned = self._scan(path, last)
        if scanned is None:
            moved = metrics_file.repair(path, last, self._workdir / run_folder.DAMAGED_METRICS)
            self._watch = fresh
            scanned = self._scan(path, last)
            assert scanned is not None
        end, missing = scanned
        self._warn_of_damage(moved, missing)
        return end

    def _scan(self, path: Path, last: int) -> tuple[int, list[metrics_file.Span]] | None:
        return metrics_file.scan(path, last, self._watch.add if self._watch else lambda row: None)

    def _warn_of_damage(self, moved: int, missing: list[metrics_file.Span]) -> None:
        """Log a warning about lines that were moved and about steps without a line."""
        path = self._workdir / run_folder.METRICS
        if moved:
            LOGGER.warning(
                "%s: moved %d damaged line%s to %s",
                *(path, moved, "s" * (moved > 1), run_folder.DAMAGED_METRICS),
            )
        if missing:
            LOGGER.warning(
                "%s: the metrics of %s are missing; the run resumes, but its curves and warnings "
                "do not include these steps",
                *(path, metrics_file.in_words(missing)),
            )

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Write the metrics of one step, and log the warnings that they trigger.

        Args:
          step: The step; it must be larger than every step written before.
          values: Name -> value; TensorBoard groups names that contain a slash.

        Raises:
          UserError: If the disk is full or refuses the write.
        """
        if step <= self._step:
            raise ValueError(f"step {step} must be larger than step {self._step}, already written")
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
                self._write_warnings()

    def _append(self, line: bytes) -> None:
        """Append a line to metrics.jsonl, or leave the file unchanged.

        A disk that fills up accepts part of a write, and reports the error only at the next one.
        """
        remaining = line
        try:
            while remaining:
                written = self._file.write(remaining)
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                remaining = remaining[written:]
        except OSError:
            with contextlib.suppress(OSError):  # if this fails, the next start repairs the file
                self._file.truncate(self._end)
            raise
        self._end += len(line)

    def _write_warnings(self) -> None:
        if self._watch:
            write_json(self._warnings, [dataclasses.asdict(given) for given in self._watch.given])

    def close(self) -> None:
        """Close both files."""
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
    """A writer that writes nothing, for every process but the first one."""

    def write(self, step: int, values: Mapping[str, Number]) -> None:
        """Do nothing."""

    def __enter__(self) -> "NoMetrics":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _plain(value: Number) -> int | float:
    return value if isinstance(value, int) else float(value)
