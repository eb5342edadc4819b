"""What a run reports while it goes: metrics.jsonl and the warnings that follow from it, event files
for TensorBoard, progress bars.

metrics.jsonl holds one JSON object a line and one line a step, its "step" first. A figure that is
not finite (nan, inf) is written as null, since JSON has no word for it: every reader then sees a
gap. A line is in the file, and in the event file, when `write` returns, so a run that is killed
loses at most the line it was writing. warnings.json is a function of those lines, and so is the
same however often a run was stopped.
"""

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

from rlp import disk, hosts, whole_folder
from rlp.errors import UserError
from rlp.health import Watch
from rlp.shown import printable, tag
from rlp.strict_json import finite, parse

LOGGER = logging.getLogger(__name__)
GO_ON = "run the same command again, which goes on from the last checkpoint"


class Number(Protocol):
    """A Python number, or an array of one number, of numpy or jax."""

    def __float__(self) -> float: ...


class MetricsWriter:
    """Writes the figures of every step of a run; a context manager.

    Opening it takes back what was logged after the step that the run goes on from: metrics.jsonl is
    cut behind that step, TensorBoard is told to drop the events behind it, and warnings.json holds
    what the steps up to it gave.
    """

    def __init__(
        self, workdir: str | Path, resume_step: int | None, watch: Watch | None = None
    ) -> None:
        """Opens `workdir`/metrics.jsonl and a new event file in `workdir`/tensorboard.

        Args:
          workdir: folder of the run; made if need be.
          resume_step: the last step to keep of what is there; None keeps nothing.
          watch: gives the run's warnings, and has seen no step yet; None for a run without.

        Raises:
          UserError: a line of metrics.jsonl that is to be kept cannot be read, or the folder
            cannot be written.
        """
        self._workdir = Path(workdir)
        path, events = Path(workdir, "metrics.jsonl"), Path(workdir, "tensorboard")
        last = -1 if resume_step is None else resume_step
        self._watch, self._warnings = watch, Path(workdir, "warnings.json")
        see: Callable[[Any], object] = watch.add if watch else lambda row: None
        self._step = last
        with disk.writing(self._workdir, GO_ON):
            end = _end_of(last, path, see) if path.exists() else 0
            events.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
            self._file.truncate(end)
            # Nanoseconds keep the files of two starts in one second apart, and in order.
            self._events = EventsWriter(str(events / "events"), f".{time.time_ns()}")
            restart = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=last + 1, session_log=restart)
            self._events.write_event(event)
            self._events.flush()
            self._keep_warnings()

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
        with disk.writing(self._workdir, GO_ON):
            self._append((json.dumps(row, allow_nan=False) + "\n").encode())
            self._events.write_event(event)
            self._events.flush()
        self._step = step
        if self._watch and (new := self._watch.add(row)):
            for warning in new:
                LOGGER.warning("step %d, %s: %s", step, warning.name, warning.message)
            with disk.writing(self._workdir, GO_ON):
                self._keep_warnings()

    def _append(self, line: bytes) -> None:
        """Adds a line to metrics.jsonl. A disk that fills up takes a part of what it is given,
        and gives its error only when it is asked to take the rest."""
        while line:
            line = line[self._file.write(line) :]

    def _keep_warnings(self) -> None:
        if self._watch:
            write_json(self._warnings, [dataclasses.asdict(given) for given in self._watch.given])

    def close(self) -> None:
        """Closes both files."""
        with disk.writing(self._workdir, GO_ON):
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


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all; a number that is not finite becomes null."""
    whole_folder.write_whole(path, json.dumps(finite(content), indent=1, allow_nan=False))


def _end_of(last: int, path: Path, see: Callable[[Any], object]) -> int:
    """Bytes of `path` up to the end of the last line to keep; a line without an end is not kept.

    `see` is called with each line that is.
    """
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = parse(line.decode())
                beyond = row["step"] > last
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a line of metrics; move the file away to go on"
                ) from error
            if beyond:
                break
            see(row)
            end += len(line)
    return end


class _Lines:
    """A stream for tqdm where there is no terminal: one line for each state it shows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress(total: int | None, initial: int = 0, label: str = "", unit: str = "step") -> tqdm:
    """A progress bar on stderr, with rate and remaining time; `update(1)` it, and close it.

    It is a context manager. Where stderr is not a terminal it writes a line at the start, every
    half minute, and at the end. Of several processes only the first one shows it; a stage of no
    units is not shown.

    Args:
      total: units of the whole stage; None where nobody knows yet.
      initial: units that were done before, in another process.
      label: what the stage does.
      unit: what is counted.
    """
    shared = {"total": total, "initial": initial, "desc": printable(label), "unit": unit}
    if total == 0 or not hosts.is_first():
        return tqdm(**shared, disable=True)
    if sys.stderr.isatty():
        return tqdm(**shared, dynamic_ncols=True, mininterval=0.5)
    return tqdm(**shared, file=_Lines(sys.stderr), ncols=100, mininterval=30, maxinterval=30)
