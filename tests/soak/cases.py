"""Cases of the soak test: a disturbed run must end like an undisturbed one."""

import dataclasses
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.compare import differences, results_of
from tests.soak.kinds import KINDS, WORKDIR, Kind
from tests.soak.program import LONGEST, Folder, Program, environment
from tests.soak.ways import WAYS, Start

DISK_BYTES = 64 << 20
MOST_SHOWN = 8  # differences listed for one case


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """An undisturbed run.

    Attributes:
      results: See `compare.results_of`.
      seconds: Duration of the run.
      startup: Seconds from the start until the first step.
      steps: Number of steps of each of its runs.
    """

    results: dict[str, Any]
    seconds: float
    startup: float
    steps: int


@dataclasses.dataclass
class Disturbance:
    """A disturbance and its result.

    Attributes:
      kind: Kind of the run.
      way: How it was disturbed.
      moment: When, in seconds since the start.
      phase: What the run was doing.
      outcome: What the run did.
      status: Its exit status.
      last_line: The last line that it printed.
      faults: Violations of what the run promises.
      output: Its stderr.
    """

    kind: str
    way: str
    moment: float
    phase: str
    outcome: str
    status: int | None
    last_line: str
    faults: list[str]
    output: str

    def __str__(self) -> str:
        faults = "".join(f"\n    WRONG: {fault}" for fault in self.faults)
        return (
            f"{self.kind}, {self.way} after {self.moment:.2f} s ({self.phase}): {self.outcome}, "
            f"status {self.status}, {self.last_line[:150]!r}{faults}"
        )


class Bench:
    """Creates the folders of cases and runs them; caches the undisturbed runs."""

    def __init__(self, folder: Path, can_mount: bool) -> None:
        """Create `folder`, which contains all files, and a small disk if it can be mounted."""
        self.folder = folder.resolve()
        (self.folder / "shared").mkdir(parents=True, exist_ok=True)
        self._variables = environment(self.folder / "shared")
        self._undisturbed: dict[str, Undisturbed] = {}
        self._kinds_made: set[str] = set()
        self.disk = _mount_disk(self.folder / "disk") if can_mount else None

    def close(self) -> None:
        """Unmount the disk."""
        if self.disk:
            subprocess.run(["umount", self.disk], check=True)

    def undisturbed(self, kind: str) -> Undisturbed:
        """Return the undisturbed run of a kind, which is run twice with equal results.

        The second run is timed, because its programs are already compiled.
        """
        if kind not in self._undisturbed:
            first, second = (self._run_undisturbed(kind, f"{kind}-{n}") for n in (1, 2))
            if wrong := differences(second.results, first.results):
                raise RuntimeError(f"two undisturbed runs of {kind} differ: {'; '.join(wrong)}")
            self._undisturbed[kind] = second
        return self._undisturbed[kind]

    def _run_undisturbed(self, kind: str, name: str) -> Undisturbed:
        folder = self._make(kind, self.folder / name)
        view = Folder(folder, KINDS[kind].runs)
        with self._start(KINDS[kind].command, folder) as program:
            while program.status is None and not view.training():
                time.sleep(0.01)
            startup = program.age
            program.wait()
            seconds = program.age
            survivors = program.survivors()
        if program.status != 0 or survivors:
            raise RuntimeError(
                f"an undisturbed run of {kind} ended with status {program.status} and left "
                f"{survivors} running: {program.err}"
            )
        steps = view.lines(view.runs[0])
        return Undisturbed(results_of(KINDS[kind], folder), seconds, startup, steps)

    def _make(self, kind: str, folder: Path) -> Path:
        """Create a folder with only the inputs of a kind, which are generated once."""
        inputs = self.folder / f"{kind}-inputs"
        if kind not in self._kinds_made:
            shutil.rmtree(inputs, ignore_errors=True)
            inputs.mkdir()
            KINDS[kind].write(inputs)
            for command in KINDS[kind].before:
                subprocess.run(
                    command, cwd=inputs, env=self._variables, check=True, capture_output=True
                )
            self._kinds_made.add(kind)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        return folder

    def _start(self, command: list[str], folder: Path) -> Program:
        return Program(command, folder, self._variables)

    def run(self, plan: "Plan") -> Iterator[Disturbance | list[str]]:
        """Run a case; yield each disturbance, and at the end the list of faults."""
        kind, undisturbed = KINDS[plan.kind], self.undisturbed(plan.kind)
        parent = self.disk if self.disk and "full disk" in plan.ways else self.folder
        folder = self._make(plan.kind, parent / f"case-{plan.number}")
        log = self.folder / f"case-{plan.number}.log"
        log.unlink(missing_ok=True)
        for n, way in enumerate(plan.ways):
            disturbance = self._disturb(plan, n, way, folder, undisturbed)
            if disturbance.faults:
                with log.open("a") as file:
                    file.write(f"{disturbance}\n{disturbance.output}\n")
            yield disturbance
            if (folder / WORKDIR / "report.html").exists():  # the last file that a run writes
                break
        faults = self._finish(kind, folder, undisturbed)
        yield faults
        if not (log.exists() or faults):
            shutil.rmtree(folder)
        elif parent != self.folder:
            shutil.move(folder, self.folder / folder.name)

    def _disturb(
        self, plan: "Plan", n: int, way: str, folder: Path, undisturbed: Undisturbed
    ) -> Disturbance:
        """Start the run and disturb it at a random moment."""
        kind, rng = KINDS[plan.kind], random.Random(f"{plan.seed}-{plan.number}-{n}")
        share = rng.random()
        # Before the first step there is hardly ever a checkpoint to damage.
        in_training = rng.random() < 0.5 or way == "damage"
        start_again = lambda: self._start(kind.command, folder)
        if way == "full disk" and not self.disk:
            way = "limit on files"
        view = Folder(folder, kind.runs, undisturbed.steps, undisturbed.results["files"])
        with start_again() as program:
            start = Start(program, view, start_again, rng, self._fill if self.disk else None)
            seconds = undisturbed.seconds - (undisturbed.startup if in_training else 0)
            while in_training and program.status is None and not view.training():
                time.sleep(0.005)
            program.wait(share * seconds)
            start.phase, moment = view.phase(), program.age
            outcome = WAYS[way](start)
        result = (outcome, program.status, program.last_line(), start.faults, program.err)
        return Disturbance(plan.kind, way, moment, start.phase, *result)

    def _finish(self, kind: Kind, folder: Path, undisturbed: Undisturbed) -> list[str]:
        """Start the run again, wait until it ends, and compare its results with an undisturbed run.

        Returns:
          The differences and other faults.
        """
        with self._start(kind.command, folder) as program:
            if not program.wait(LONGEST):
                return [f"still ran after {LONGEST} s"]
            survivors = program.survivors()
        if program.status != 0:
            return [f"the same command ended with status {program.status}: {program.last_line()}"]
        faults = [f"left running: {line}" for line in survivors]
        return [*faults, *differences(results_of(kind, folder), undisturbed.results)][:MOST_SHOWN]

    def _fill(self, free: int) -> Path:
        """Fill the disk except for `free` bytes. Returns the file that fills it."""
        assert self.disk
        path = self.disk / "filler"
        with path.open("wb") as file:
            state = os.statvfs(self.disk)
            size = state.f_bavail * state.f_frsize - free
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)
        return path


@dataclasses.dataclass
class Plan:
    """The plan of case `number`, which depends only on the seed and the number."""

    number: int
    seed: int
    kind: str
    ways: list[str]

    @classmethod
    def drawn(cls, seed: int, number: int, kinds: list[str], ways: list[str]) -> "Plan":
        """Draw the plan of a case: one kind, and one to three ways."""
        rng = random.Random(f"{seed}-{number}")
        kind = rng.choice(kinds)
        return cls(number, seed, kind, rng.choices(ways, k=rng.randint(1, 3)))


def _mount_disk(folder: Path) -> Path | None:
    """Mount a small disk in memory at `folder` for this process and its children; None if the
    system does not allow it."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(folder)]
    return None if subprocess.run(mount, capture_output=True).returncode else folder
