"""A case of the soak test: a run that is disturbed must end as if it never was."""

import dataclasses
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.compare import differences, left_by
from tests.soak.kinds import KINDS, WORKDIR, Kind
from tests.soak.program import LONGEST, Folder, Program, environment
from tests.soak.ways import WAYS, Start

DISK_BYTES = 64 << 20
MOST_SHOWN = 8  # differences of one case


@dataclasses.dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
      left: as `compare.left_by` gives it.
      seconds: from its start to its end.
      begun: seconds from its start until its first step.
      steps: of each of its runs.
    """

    left: dict[str, Any]
    seconds: float
    begun: float
    steps: int


@dataclasses.dataclass
class Disturbance:
    """What came of one disturbance: the moment is in seconds since the start, the output is what
    the program wrote on stderr."""

    kind: str
    way: str
    moment: float
    phase: str
    outcome: str
    status: int | None
    said: str
    faults: list[str]
    output: str

    def __str__(self) -> str:
        faults = "".join(f"\n    WRONG: {fault}" for fault in self.faults)
        return (
            f"{self.kind}, {self.way} after {self.moment:.2f} s ({self.phase}): {self.outcome}, "
            f"status {self.status}, {self.said[:150]!r}{faults}"
        )


class Bench:
    """Makes the folders of cases, and knows the undisturbed runs."""

    def __init__(self, folder: Path, own_mounts: bool) -> None:
        """Keeps everything under `folder`, which is made; with mounts of its own, also a disk."""
        self.folder = folder.resolve()
        (self.folder / "shared").mkdir(parents=True, exist_ok=True)
        self._variables = environment(self.folder / "shared")
        self._whole: dict[str, Whole] = {}
        self._kinds_made: set[str] = set()
        self.disk = _own_disk(self.folder / "disk") if own_mounts else None

    def close(self) -> None:
        """Takes the disk away."""
        if self.disk:
            subprocess.run(["umount", self.disk], check=True)

    def whole(self, kind: str) -> Whole:
        """The undisturbed run of a kind; it is made twice, and both must be equal.

        The second is the one that is timed: its programs are compiled.
        """
        if kind not in self._whole:
            once, again = (self._undisturbed(kind, f"{kind}-{n}") for n in (1, 2))
            if wrong := differences(again.left, once.left):
                raise RuntimeError(f"two undisturbed runs of {kind} differ: {'; '.join(wrong)}")
            self._whole[kind] = again
        return self._whole[kind]

    def _undisturbed(self, kind: str, name: str) -> Whole:
        folder = self._made(kind, self.folder / name)
        view = Folder(folder, KINDS[kind].runs)
        with self._start(KINDS[kind].command, folder) as program:
            while program.status is None and not view.training():
                time.sleep(0.01)
            begun = program.age
            program.wait()
            seconds = program.age
            left = program.left()
        if program.status != 0 or left:
            raise RuntimeError(
                f"an undisturbed run of {kind} ended with status {program.status} and left {left} "
                f"running: {program.err}"
            )
        steps = view.lines(view.runs[0])
        return Whole(left_by(KINDS[kind], folder), seconds, begun, steps)

    def _made(self, kind: str, folder: Path) -> Path:
        """A folder that holds the inputs of a kind and nothing else; they are made once."""
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
        """Carries a plan out: each disturbance, and at the end the differences that are left."""
        kind, whole = KINDS[plan.kind], self.whole(plan.kind)
        place = self.disk if self.disk and "full disk" in plan.ways else self.folder
        folder = self._made(plan.kind, place / f"case-{plan.number}")
        log = self.folder / f"case-{plan.number}.log"
        log.unlink(missing_ok=True)
        for n, way in enumerate(plan.ways):
            done = self._disturb(plan, n, way, folder, whole)
            if done.faults:
                with log.open("a") as file:
                    file.write(f"{done}\n{done.output}\n")
            yield done
            if (folder / WORKDIR / "report.html").exists():  # the last thing that a run writes
                break
        faults = self._finish(kind, folder, whole)
        yield faults
        if not (log.exists() or faults):
            shutil.rmtree(folder)
        elif place != self.folder:
            shutil.move(folder, self.folder / folder.name)

    def _disturb(self, plan: "Plan", n: int, way: str, folder: Path, whole: Whole) -> Disturbance:
        """Starts the run and disturbs it at a random moment."""
        kind, chosen = KINDS[plan.kind], random.Random(f"{plan.seed}-{plan.number}-{n}")
        share = chosen.random()
        # Before the first step there is hardly a checkpoint that can be damaged.
        in_training = chosen.random() < 0.5 or way == "damage"
        again = lambda: self._start(kind.command, folder)
        if way == "full disk" and not self.disk:
            way = "limit on files"  # where no disk can be mounted
        view = Folder(folder, kind.runs, whole.steps, whole.left["files"])
        with again() as program:
            start = Start(program, view, again, chosen, self._fill if self.disk else None)
            wait = share * (whole.seconds - (whole.begun if in_training else 0))
            while in_training and program.status is None and not view.training():
                time.sleep(0.005)
            program.wait(wait)
            start.phase, moment = view.phase(), program.age
            outcome = WAYS[way](start)
        done = (outcome, program.status, program.last_line(), start.faults, program.err)
        return Disturbance(plan.kind, way, moment, start.phase, *done)

    def _finish(self, kind: Kind, folder: Path, whole: Whole) -> list[str]:
        """Starts the run until it ends, and compares what it leaves; where that differs."""
        with self._start(kind.command, folder) as program:
            if not program.wait(LONGEST):
                return [f"still ran after {LONGEST} s"]
            left = program.left()
        if program.status != 0:
            return [f"the same command ended with status {program.status}: {program.last_line()}"]
        found = [f"left running: {line}" for line in left]
        return [*found, *differences(left_by(kind, folder), whole.left)][:MOST_SHOWN]

    def _fill(self, room: int) -> Path:
        """Leaves `room` bytes free on the disk; the file that takes the others."""
        assert self.disk
        path = self.disk / "filler"
        with path.open("wb") as file:
            state = os.statvfs(self.disk)
            most = state.f_bavail * state.f_frsize - room
            if most > 0:
                os.posix_fallocate(file.fileno(), 0, most)
        return path


@dataclasses.dataclass
class Plan:
    """What case `number` does, as the seed wants it, whatever was done before."""

    number: int
    seed: int
    kind: str
    ways: list[str]

    @classmethod
    def drawn(cls, seed: int, number: int, kinds: list[str], ways: list[str]) -> "Plan":
        """The plan of a case: one kind, and one to three ways."""
        chosen = random.Random(f"{seed}-{number}")
        kind = chosen.choice(kinds)
        return cls(number, seed, kind, chosen.choices(ways, k=chosen.randint(1, 3)))


def _own_disk(folder: Path) -> Path | None:
    """A small disk in memory, mounted at `folder` for this process and those that it starts; None
    where that may not be."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(folder)]
    return None if subprocess.run(mount, capture_output=True).returncode else folder
