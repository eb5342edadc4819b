"""Run the points of a sweep on this machine, each in its own process with its own log."""

import fcntl
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from launch.points import Point
from rlp.runtime import disk_errors, signals

_POLL_SECONDS = 0.2


@dataclass
class Outcome:
    """The result of a sweep.

    Attributes:
      failed: what happened to each point that did not finish, by name.
      left: names of points that did not run to their end because the sweep was stopped.
      stopped_by: the first signal that stopped the sweep; None without one.
    """

    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    stopped_by: int | None = None


class _Requests:
    """A context manager that counts the signals that would end the program."""

    def __enter__(self) -> "_Requests":
        self.count = 0
        self.first: int | None = None
        self._before = {number: signal.signal(number, self._note) for number in signals.handled()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.first = self.first or number


def run_points(
    points: Sequence[Point],
    commands: Mapping[str, Sequence[str]],
    logs: Path,
    max_parallel: int,
    label: str,
) -> Outcome:
    """Run all unfinished points in their order, `max_parallel` at a time.

    If a point fails, the points that need it are not started, but all others are. The first signal
    of `signals.ENDING` (SIGTERM, Ctrl-C, …) makes the running points save and end; the second one
    kills them.

    Args:
      points: each after those that it needs.
      commands: the command of every point.
      logs: folder of the logs, <name>.log, to which a new attempt appends.
      max_parallel: maximum number of processes at a time.
      label: label of the progress bar.

    Raises:
      UserError: A log cannot be written; the running points are told to save and end.
    """
    from rlp.runtime.progress import progress  # imports jax

    with disk_errors.writing(logs):
        logs.mkdir(parents=True, exist_ok=True)
    runner = _Runner(points, commands, logs)
    done = len(points) - len(runner.waiting)
    with _Requests() as stop, progress(len(points), done, label, "point") as bar:
        passed_on = 0
        try:
            while runner.running or (runner.waiting and not stop.count):
                if passed_on < stop.count:
                    passed_on = stop.count
                    runner.send(signal.SIGTERM if passed_on == 1 else signal.SIGKILL)
                changed = False
                for finished in runner.collect(stopping=passed_on > 0):
                    bar.update(finished)
                    changed = True
                if not stop.count and len(runner.running) < max_parallel:
                    changed |= runner.start_next()
                if changed:
                    bar.set_postfix_str(", ".join(runner.running), refresh=True)
                else:
                    time.sleep(_POLL_SECONDS)
        finally:
            runner.send(signal.SIGTERM)  # nothing runs here unless an error was raised
    runner.outcome.stopped_by = stop.first
    runner.outcome.left += [point.name for point in runner.waiting]
    return runner.outcome


class _Runner:
    """The waiting and the running points, and the outcome of the others."""

    def __init__(
        self, points: Sequence[Point], commands: Mapping[str, Sequence[str]], logs: Path
    ) -> None:
        self._points = {point.name: point for point in points}
        self._commands, self._logs = commands, logs
        self.waiting = [point for point in points if not point.finished]
        self.running: dict[str, subprocess.Popen] = {}
        self.outcome = Outcome()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every process."""
        for process in self.running.values():
            process.send_signal(number)

    def collect(self, *, stopping: bool) -> Iterator[bool]:
        """Remove the processes that have ended; yield for each whether its point is finished."""
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            finished = process.returncode == 0 and self._points[name].finished
            if not finished and stopping:
                self.outcome.left.append(name)
            elif not finished:
                self.outcome.failed[name] = _ended(process.returncode)
            yield finished

    def start_next(self) -> bool:
        """Start the first point that is ready; drop those that need a failed one.

        Returns:
          Whether a point was started or dropped.
        """
        for point in self.waiting:
            broken = [name for name in point.needs if name in self.outcome.failed]
            if broken:
                self.outcome.failed[point.name] = f"was not started, because {broken[0]} failed"
            elif all(self._points[name].finished for name in point.needs):
                self._start(point)
            else:
                continue
            self.waiting.remove(point)
            return True
        return False

    def _start(self, point: Point) -> None:
        words, log = self._commands[point.name], self._logs / f"{point.name}.log"
        with disk_errors.writing(log, disk_errors.RUN_AGAIN):
            process = _start(words, log)
        if process is None:
            self.outcome.failed[point.name] = "is being run by another sweep"
        else:
            self.running[point.name] = process


def _start(words: Sequence[str], log: Path) -> subprocess.Popen | None:
    """Start a command that writes to `log`, in a new session: Ctrl-C is passed on by this program.

    The log is locked while the process lives, even if this program is killed first.
    Returns None if it is already locked.
    """
    with open(log, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        file.write(f"$ {shlex.join(words)}\n".encode())
        file.flush()
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _ended(status: int) -> str:
    if status == 0:
        return "was stopped; its state is saved"
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
