"""The ways in which the soak test disturbs a run, and checks of what the run must do then."""

import contextlib
import dataclasses
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.program import LONGEST, Folder, Program

PROMPT = 45  # seconds within which a run must stop after a signal, on a busy machine
AT_ONCE = 15  # seconds within which a second Ctrl-C must end a run
SAVED = "the state is saved"
FINISHED = "finished first"


@dataclasses.dataclass
class Start:
    """A started run that is about to be disturbed.

    Attributes:
      program: The running program.
      folder: The folder of its case.
      start_again: Starts the same command once more.
      rng: Generator of random choices.
      disk: Fills the disk of the case; None if no disk could be mounted.
      phase: What the run is doing at the moment of the disturbance.
      faults: Violations of what the run promises.
    """

    program: Program
    folder: Folder
    start_again: Callable[[], Program]
    rng: random.Random
    disk: Callable[[int], Path] | None = None
    phase: str = ""
    faults: list[str] = dataclasses.field(default_factory=list)

    def expect(self, promised: bool, otherwise: str) -> None:
        """Record a fault unless `promised` is true."""
        if not promised:
            self.faults.append(otherwise)

    def ends(self, seconds: float = PROMPT, program: Program | None = None) -> None:
        """Wait for the end of the program, and record a fault if it takes more than `seconds`."""
        program = program or self.program
        if not program.wait(seconds):
            self.faults.append(f"still ran {seconds} s later")
            program.send(signal.SIGKILL)
            program.wait()
        if survivors := program.survivors():
            self.faults.append(f"left {len(survivors)} processes running: {'; '.join(survivors)}")

    def one_line(self, program: Program, *words: str) -> None:
        """Expect status 2 and a single error line with these words."""
        errors = [line for line in program.err.splitlines() if line.startswith("error: ")]
        self.expect(program.status == 2, f"ended with status {program.status} instead of 2")
        self.expect(len(errors) == 1, f"printed {len(errors)} error lines instead of 1")
        for word in words:
            self.expect(any(word in line for line in errors), f"does not say {word!r}")

    def no_traceback(self, *programs: Program) -> None:
        """Expect that no traceback was printed."""
        for program in programs or (self.program,):
            if "Traceback (most recent call last)" in program.err + program.out:
                self.faults.append(f"printed a traceback: {program.last_line()[:150]!r}")

    def came_too_late(self) -> bool:
        """Whether the run had finished before the disturbance took effect."""
        return self.program.status == 0 and SAVED not in self.program.out + self.program.err


def kill(start: Start) -> str:
    """Send SIGKILL."""
    start.program.send(signal.SIGKILL)
    start.ends()
    return FINISHED if start.came_too_late() else "killed"


def _stop(number: int, status: int, everyone: bool = False) -> Callable[[Start], str]:
    """Return a way that sends a signal; a run that saves its state must end with `status`."""

    def way(start: Start) -> str:
        start.program.send(number, everyone)
        start.ends()
        start.no_traceback()
        return _stopped(start, number, status)

    return way


def _stopped(start: Start, number: int, status: int) -> str:
    """Check a run that received a signal once, and describe what it did."""
    text = start.program.out + start.program.err
    if start.came_too_late():
        return FINISHED
    # If the run was killed before, its metrics are ahead of its checkpoints during start-up.
    unsaved = [] if start.phase == "start-up" else start.folder.unsaved()
    start.expect(not unsaved, f"steps are lost ({'; '.join(unsaved)})")
    if SAVED not in text:
        fault = f"ended with status {start.program.status} and not by the signal"
        start.expect(start.program.status == -number, fault)
        return "ended by the signal"
    start.expect(start.program.status == status, f"saved, with status {start.program.status}")
    start.expect(signal.Signals(number).name in text, "does not name the signal")
    leftovers = start.folder.temporary()
    start.expect(not leftovers, f"left the files {', '.join(leftovers)}")
    return "saved"


def interrupt_twice(start: Start) -> str:
    """Press Ctrl-C, and again before the run has ended."""
    start.program.send(signal.SIGINT, everyone=True)
    time.sleep(start.rng.uniform(0, 1))
    start.program.send(signal.SIGINT, everyone=True)
    start.ends(AT_ONCE)
    start.no_traceback()
    if start.came_too_late():
        return FINISHED
    start.expect(start.program.status == -signal.SIGINT, f"status {start.program.status}")
    return "saved" if SAVED in start.program.out + start.program.err else "ended by the signal"


def full_disk(start: Start) -> str:
    """Fill the disk except for at most 300 kB, until the run has ended."""
    assert start.disk
    filler = start.disk(start.rng.randrange(start.rng.choice([1, 300_000])))
    try:
        start.ends(LONGEST)
    finally:
        filler.unlink()
    return _refused_by_the_disk(start)


def limited_files(start: Start) -> str:
    """Limit the size of files to less than that of some files of the run."""
    limit = start.rng.randrange(start.rng.choice([1, 20_000, 300_000]))
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        resource.prlimit(start.program.pid, resource.RLIMIT_FSIZE, (limit, limit))
    start.ends(LONGEST)
    return _refused_by_the_disk(start)


def _refused_by_the_disk(start: Start) -> str:
    start.no_traceback()
    if start.came_too_late():
        return FINISHED
    start.one_line(start.program, "cannot be written")
    return "refused in one line"


def second_process(start: Start) -> str:
    """Start the same command a second time; one of the two must be refused and name the other.

    Both may succeed if the second process starts after the first has finished.
    """
    with start.start_again() as second:
        start.ends(LONGEST, second)
        start.ends(LONGEST)
        both = (start.program, second)
        start.no_traceback(*both)
        refused = [program for program in both if program.status == 2]
        if not refused and "nothing to do" in second.out + second.err:
            start.expect(start.program.status == 0, f"status {start.program.status}")
            return "the second found the run finished"
        if not refused:
            start.expect(False, "both ran in the same workdir: " + second.last_line())
            return "neither was refused"
        (other,) = [program for program in both if program is not refused[0]] or both[1:]
        start.one_line(refused[0], str(other.pid))
        start.expect(other.status == 0, f"the owner ended with status {other.status}")
        which = "second" if refused[0] is second else "first"
        return f"the {which} was refused in one line: {refused[0].last_line()}"


def freeze(start: Start) -> str:
    """Send SIGSTOP, and SIGCONT up to 3 s later."""
    start.program.send(signal.SIGSTOP)
    time.sleep(start.rng.uniform(0, 3))
    start.program.send(signal.SIGCONT)
    start.ends(LONGEST)
    start.no_traceback()
    start.expect(start.program.status == 0, f"ended with status {start.program.status}")
    return "ran to its end"


def damage(start: Start) -> str:
    """Send SIGKILL and change one byte of the newest checkpoint, if there is an older one."""
    start.program.send(signal.SIGKILL)
    start.ends()
    run = start.folder.current()
    steps = start.folder.steps(run)
    if start.came_too_late() or len(steps) < 2 or start.folder.finished():
        return "killed without a checkpoint to damage"
    files = sorted(path for path in (run / f"checkpoints/{steps[-1]}").rglob("*") if path.is_file())
    path = start.rng.choice([path for path in files if path.stat().st_size])
    offset = start.rng.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        old = os.pread(file.fileno(), 1, offset)[0]
        os.pwrite(file.fileno(), bytes([old ^ start.rng.randrange(1, 256)]), offset)
    return f"killed and damaged: {path.relative_to(start.folder.path)}, byte {offset}"


WAYS: dict[str, Callable[[Start], str]] = {
    "SIGKILL": kill,
    "SIGTERM": _stop(signal.SIGTERM, 0),
    "SIGINT": _stop(signal.SIGINT, -signal.SIGINT, everyone=True),
    "SIGINT twice": interrupt_twice,
    "SIGHUP": _stop(signal.SIGHUP, 0, everyone=True),
    "SIGUSR1": _stop(signal.SIGUSR1, 0),
    "full disk": full_disk,
    "limit on files": limited_files,
    "second process": second_process,
    "SIGSTOP, SIGCONT": freeze,
    "damage": damage,
}
