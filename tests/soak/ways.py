"""The ways in which the soak test disturbs a run, and what the run has promised to do then."""

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

PROMPT = 45  # seconds in which a run must end that was asked to, on a machine that is busy
AT_ONCE = 15  # seconds in which a second Ctrl-C must end it
SAVED = "the state is saved"
FINISHED = "finished first"


@dataclasses.dataclass
class Start:
    """A start of a run that is about to be disturbed.

    Attributes:
      program: the running program.
      folder: the folder of its case.
      again: starts the same command once more.
      chosen: where random choices come from.
      disk: fills the disk of the case up; None where there is no disk of its own.
      phase: of the run at the moment of the disturbance.
      faults: what was not as promised.
    """

    program: Program
    folder: Folder
    again: Callable[[], Program]
    chosen: random.Random
    disk: Callable[[int], Path] | None = None
    phase: str = ""
    faults: list[str] = dataclasses.field(default_factory=list)

    def expect(self, promised: bool, otherwise: str) -> None:
        """Notes a fault unless what was promised holds."""
        if not promised:
            self.faults.append(otherwise)

    def ends(self, seconds: float = PROMPT, program: Program | None = None) -> None:
        """Waits for the end of the program, which must come in so many seconds."""
        program = program or self.program
        if not program.wait(seconds):
            self.faults.append(f"still ran {seconds} s later")
            program.send(signal.SIGKILL)
            program.wait()
        if left := program.left():
            self.faults.append(f"left {len(left)} processes running: {'; '.join(left)}")

    def one_line(self, program: Program, *words: str) -> None:
        """Expects status 2 and a single line that says what is wrong."""
        errors = [line for line in program.err.splitlines() if line.startswith("error: ")]
        self.expect(program.status == 2, f"ended with status {program.status} instead of 2")
        self.expect(len(errors) == 1, f"gave {len(errors)} error lines instead of 1")
        for word in words:
            self.expect(any(word in line for line in errors), f"does not say {word!r}")

    def no_traceback(self, *programs: Program) -> None:
        """Expects that none was shown."""
        for program in programs or (self.program,):
            if "Traceback (most recent call last)" in program.err + program.out:
                self.faults.append(f"showed a traceback that ends in {program.last_line()[:150]!r}")

    def came_too_late(self) -> bool:
        """Whether the run ended as if nothing had happened."""
        return self.program.status == 0 and SAVED not in self.program.out + self.program.err


def kill(start: Start) -> str:
    """SIGKILL."""
    start.program.send(signal.SIGKILL)
    start.ends()
    return FINISHED if start.came_too_late() else "killed"


def _stop(number: int, status: int, everyone: bool = False) -> Callable[[Start], str]:
    """A signal that asks the run to save and end, with `status` if it did."""

    def way(start: Start) -> str:
        start.program.send(number, everyone)
        start.ends()
        start.no_traceback()
        return _stopped(start, number, status)

    return way


def _stopped(start: Start, number: int, status: int) -> str:
    """What became of a run that got a signal once."""
    text = start.program.out + start.program.err
    if start.came_too_late():
        return FINISHED
    # At the start of a run that was killed before, metrics are ahead of the checkpoints.
    unsaved = [] if start.phase == "start-up" else start.folder.unsaved()
    start.expect(not unsaved, f"steps are lost ({'; '.join(unsaved)})")
    if SAVED not in text:
        ended = f"ended with status {start.program.status} and not by the signal"
        start.expect(start.program.status == -number, ended)
        return "ended by the signal"
    start.expect(start.program.status == status, f"saved, with status {start.program.status}")
    start.expect(signal.Signals(number).name in text, "does not name the signal")
    left = start.folder.temporary()
    start.expect(not left, f"left {', '.join(left)}")
    return "saved"


def interrupt_twice(start: Start) -> str:
    """Ctrl-C, and again before the run has ended."""
    start.program.send(signal.SIGINT, everyone=True)
    time.sleep(start.chosen.uniform(0, 1))
    start.program.send(signal.SIGINT, everyone=True)
    start.ends(AT_ONCE)
    start.no_traceback()
    if start.came_too_late():
        return FINISHED
    start.expect(start.program.status == -signal.SIGINT, f"status {start.program.status}")
    return "saved" if SAVED in start.program.out + start.program.err else "ended by the signal"


def full_disk(start: Start) -> str:
    """The disk has no more than some kilobytes left, until the run has ended."""
    assert start.disk
    filler = start.disk(start.chosen.randrange(start.chosen.choice([1, 300_000])))
    try:
        start.ends(LONGEST)
    finally:
        filler.unlink()
    return _refused_by_the_disk(start)


def limited_files(start: Start) -> str:
    """No file may grow beyond a size that is less than that of some."""
    most = start.chosen.randrange(start.chosen.choice([1, 20_000, 300_000]))
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        resource.prlimit(start.program.pid, resource.RLIMIT_FSIZE, (most, most))
    start.ends(LONGEST)
    return _refused_by_the_disk(start)


def _refused_by_the_disk(start: Start) -> str:
    start.no_traceback()
    if start.came_too_late():
        return FINISHED
    start.one_line(start.program, "cannot be written")
    return "refused in one line"


def second_process(start: Start) -> str:
    """The same command is started while it runs: one of both must be refused, and name the other.

    Both may end well if the second came when the first was done.
    """
    with start.again() as second:
        start.ends(LONGEST, second)
        start.ends(LONGEST)
        both = (start.program, second)
        start.no_traceback(*both)
        refused = [program for program in both if program.status == 2]
        if not refused and "nothing to do" in second.out + second.err:
            start.expect(start.program.status == 0, f"status {start.program.status}")
            return "the second found it finished"
        if not refused:
            start.expect(False, "both ran in one workdir: " + second.last_line())
            return "neither was refused"
        (other,) = [program for program in both if program is not refused[0]] or both[1:]
        start.one_line(refused[0], str(other.pid))
        start.expect(other.status == 0, f"the owner ended with status {other.status}")
        which = "second" if refused[0] is second else "first"
        return f"the {which} was refused in one line: {refused[0].last_line()}"


def freeze(start: Start) -> str:
    """SIGSTOP, and SIGCONT some time later."""
    start.program.send(signal.SIGSTOP)
    time.sleep(start.chosen.uniform(0, 3))
    start.program.send(signal.SIGCONT)
    start.ends(LONGEST)
    start.no_traceback()
    start.expect(start.program.status == 0, f"ended with status {start.program.status}")
    return "ran to its end"


def damage(start: Start) -> str:
    """SIGKILL, and one byte of the newest checkpoint is changed; there must be one before it."""
    start.program.send(signal.SIGKILL)
    start.ends()
    run = start.folder.current()
    steps = start.folder.steps(run)
    if start.came_too_late() or len(steps) < 2 or start.folder.finished():
        return "killed where nothing can be damaged"
    files = sorted(path for path in (run / f"checkpoints/{steps[-1]}").rglob("*") if path.is_file())
    path = start.chosen.choice([path for path in files if path.stat().st_size])
    place = start.chosen.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        old = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([old ^ start.chosen.randrange(1, 256)]), place)
    return f"killed and damaged: {path.relative_to(start.folder.path)}, byte {place}"


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
