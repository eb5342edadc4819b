"""Start and watch a program, and verify that none of its processes survive it."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from pathlib import Path

from tests.soak.kinds import ROOT, WORKDIR
from tests.support.environment import of_a_user

MARK = "SOAK_PROGRAM"  # environment variable of a program and of all processes that it starts
LONGEST = 600  # seconds that any run may take
LINGERING = 20  # seconds that child processes may survive the program


def environment(shared: Path) -> dict[str, str]:
    """Return the environment of a user who has run these programs before.

    Args:
      shared: Folder for caches (compiled code, a list of fonts).
    """
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(shared / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    # With one device in each process, two runs are bit-identical.
    fixed = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "HF_HUB_OFFLINE": "1"}
    plots = {"MPLCONFIGDIR": str(shared / "matplotlib")}
    return compiled | of_a_user() | fixed | plots | {"PYTHONPATH": str(ROOT)}


class Program:
    """A running program. As a context manager it kills all its processes at the end."""

    _count = 0

    def __init__(self, command: list[str], folder: Path, variables: dict[str, str]) -> None:
        """Start the program in `folder`, which also contains its temporary files and its cache."""
        for name in ("tmp", "cache"):
            (folder / name).mkdir(exist_ok=True)
        Program._count += 1
        self._mark = f"{os.getpid()}-{Program._count}"
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables
            | {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
            | {MARK: self._mark},
            stdin=subprocess.DEVNULL,
            # A limit on file sizes does not affect pipes.
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.out = self.err = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.out, self.err = self._process.communicate()

    @property
    def status(self) -> int | None:
        """The exit status, -N if signal N ended the program; None while it runs."""
        return self._process.poll()

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def send(self, number: int, everyone: bool = False) -> None:
        """Send a signal to the program or, like a terminal, to its whole process group."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            (os.killpg if everyone else os.kill)(self.pid, number)

    def wait(self, seconds: float = LONGEST) -> bool:
        """Wait for the end of the program. Returns whether it ended in time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def survivors(self) -> list[str]:
        """Return the command lines of processes that survive the program by `LINGERING` seconds."""
        end = time.monotonic() + LINGERING
        while (others := self._marked()) and time.monotonic() < end:
            time.sleep(0.2)
        commands = [_command_line(pid) for pid in others]
        self._kill_all()
        return commands

    def _marked(self) -> list[int]:
        mark = f"{MARK}={self._mark}".encode()
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
                if mark in _read(f"/proc/{pid}/environ").split(b"\0")]  # fmt: skip

    def _kill_all(self) -> None:
        """Kill all processes of this program, and read the rest of its output."""
        for pid in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill_all()

    def last_line(self) -> str:
        """Return the last error that it printed, or else the last line besides progress bars."""
        lines = [line.strip() for line in (self.err + "\n" + self.out).splitlines()]
        lines = [line for line in lines if line and "%|" not in line]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [""])[-1]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended, or belongs to someone else
        return b""


def _command_line(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")[:150]


class Folder:
    """Observes a run by the files in the folder of its case."""

    def __init__(
        self, folder: Path, runs: tuple[str, ...], last: int = 0, stays: Collection[str] = ()
    ) -> None:
        """Observe a folder.

        Args:
          folder: Folder of the case.
          runs: Folders of runs in the workdir.
          last: Number of steps of each run.
          stays: Paths of the files of an undisturbed run.
        """
        self.path, self._last, self._stays = folder, last, stays
        self.runs = [folder / WORKDIR / name for name in runs]
        self._starts = self._event_files()

    def _event_files(self) -> int:
        return sum(len(list((run / "tensorboard").glob("*"))) for run in self.runs)

    def lines(self, run: Path) -> int:
        """Lines of metrics.jsonl."""
        path = run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def steps(self, run: Path) -> list[int]:
        """Steps of the checkpoints that are there, rising."""
        names = [path.name for path in run.glob("checkpoints/*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def training(self) -> bool:
        """Whether a program started after this object was created has begun its steps."""
        return self._event_files() > self._starts

    def current(self) -> Path:
        """Return the first run that is not finished, or else the last run."""
        unfinished = [run for run in self.runs if not (run / "evaluation.json").exists()]
        return (unfinished or self.runs[-1:])[0]

    def finished(self) -> bool:
        """Whether all runs have an evaluation."""
        return all((run / "evaluation.json").exists() for run in self.runs)

    def phase(self) -> str:
        """Describe what the program is doing, in a word or two."""
        if self.finished():
            return "report"
        run = self.current()
        if not self.training():
            return "start-up"
        if any(run.glob("checkpoints/*.orbax-checkpoint-tmp")):
            return "saving"
        done = self.lines(run)
        return "evaluation" if done == self._last else f"step {done + 1}"

    def unsaved(self) -> list[str]:
        """Describe the runs whose newest checkpoint is not of the last step in their metrics."""
        descriptions = []
        for run in self.runs:
            lines, steps = self.lines(run), self.steps(run)
            if not (run / "evaluation.json").exists() and lines != max(steps, default=0):
                descriptions.append(
                    f"{run.name}: metrics up to step {lines}, checkpoints of {steps}"
                )
        return descriptions

    def temporary(self) -> list[str]:
        """Return half-written files and leases, which must not exist after an orderly end."""
        marks = (".unfinished-", ".orbax-checkpoint-tmp", ".replaced", "lease", "lock")
        paths = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*")}
        is_marked = lambda path: any(mark in path.rpartition("/")[2] for mark in marks)
        return sorted(path for path in paths.difference(self._stays) if is_marked(path))


def read_json(path: Path) -> object:
    """Read a JSON file."""
    return json.loads(path.read_text())
