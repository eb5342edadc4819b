"""metrics.jsonl as it is found: read line by line, checked, and repaired.

Kills, full disks, power failures and hands leave files with lines that are cut, glued together,
garbled, missing, or in another order. `read` gives every line with what could be read of it, and
`missing` the steps that are not there. A run that resumes repairs its file (`repair`); the report
shows what there is and notes what there is not.
"""

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlp.runtime import atomic_files
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

LONGEST = 1 << 20  # bytes of a line; those of a run have a few thousand
FIRST_KEY = b'{"step"'  # how a line begins
MOST_SPANS = 5  # stretches of steps that a message names

Row = dict[str, Any]  # "step" to a whole number, every other name to a number or None
Span = tuple[int, int]  # first and last step of a stretch


@dataclass(frozen=True)
class Line:
    """A line of metrics.jsonl.

    Attributes:
      start: its place in the file, in bytes.
      content: its bytes, with the line end if it has one; of an endless line, the first ones.
      row: its figures; None if they cannot be read.
      skipped: bytes in front of the row: what is left of another line, which was cut.
    """

    start: int
    content: bytes
    row: Row | None
    skipped: int = 0

    @property
    def torn(self) -> bool:
        """Whether it is the last line, which nobody has finished."""
        return self.row is None and not self.content.endswith(b"\n") and not self._endless

    @property
    def clean(self) -> bool:
        """Whether it is a row with its line end, and nothing else."""
        return self.row is not None and not self.skipped and self.content.endswith(b"\n")

    @property
    def _endless(self) -> bool:
        return len(self.content) == LONGEST


def check(path: Path) -> None:
    """Raises UserError if something other than a regular file has the name: reading it, or writing
    to it, might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is not a regular file; move it away, then run the command again")


def read(path: Path) -> Iterator[Line]:
    """Every line of a file of metrics, in the order of the file.

    Raises:
      UserError: as `check` does.
      OSError: it cannot be read.
    """
    check(path)
    with path.open("rb") as file:
        start = 0
        while content := file.readline(LONGEST):
            yield _line(start, content)
            while not content.endswith(b"\n") and len(content) == LONGEST:
                content = file.readline(LONGEST)
            start = file.tell()


def _line(start: int, content: bytes) -> Line:
    row = _row(content)
    if row is not None:
        return Line(start, content, row)
    last = content.rfind(FIRST_KEY)
    return Line(start, content, _row(content[last:]) if last > 0 else None, max(last, 0))


def _row(content: bytes) -> Row | None:
    """The figures of a line, or None if it is not a line of metrics."""
    try:
        row = parse(content.decode())
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(map(is_number, row.values())) else None


def is_number(value: object) -> bool:
    """Whether this is None or a number that a float can hold; nan and inf are, too."""
    if value is None or type(value) is float:
        return True
    return type(value) is int and abs(value) < 2**1023


def missing(steps: Iterable[int], last: int) -> list[Span]:
    """The stretches of 1 … `last` that are not among some steps, which rise."""
    spans, expected = [], 1
    for step in steps:
        if step > expected:
            spans.append((expected, step - 1))
        expected = max(expected, step + 1)
    return [*spans, (expected, last)] if expected <= last else spans


def in_words(spans: list[Span]) -> str:
    """Stretches of steps in words: "step 3", or "steps 3, 5 to 9 and 12"."""
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    if len(texts) > MOST_SPANS:
        count = sum(last - first + 1 for first, last in spans[MOST_SPANS:])
        texts = [*texts[:MOST_SPANS], f"{count:,} more"]
    *most, end = texts
    alone = spans[0][0] == spans[-1][1]
    return f"step {end}" if alone else f"steps {', '.join(most)}{' and ' * bool(most)}{end}"


def scan(path: Path, last: int, see: Callable[[Row], object]) -> tuple[int, list[Span]] | None:
    """Where the lines up to step `last` end, in bytes, and the stretches of steps that are missing.

    None if the file needs to be repaired before. Errors as of `read`.

    Args:
      see: is called with every line up to there.
    """
    end, before, beyond = 0, -math.inf, False
    steps: list[int] = []
    for line in read(path):
        if line.torn:
            break
        if not line.clean or line.row is None:
            return None
        step = line.row["step"]
        beyond |= step > last
        if not beyond:
            see(line.row)
            end = line.start + len(line.content)
            steps.append(step)
        if step <= before or (beyond and step <= last):
            return None
        before = step
    return end, missing(steps, last)


def repair(path: Path, last: int, damaged: Path) -> int:
    """Rewrites a file of metrics so that it holds the steps up to `last`, each once, in order.

    Of a step that is there twice, the later line is kept. Lines that cannot be read, and those of a
    step that is there again with other figures, are added to `damaged`.

    Returns:
      The number of lines that were added to `damaged`.

    Raises:
      UserError, OSError: as `read`, or a file cannot be written. `path` is then as it was.
    """
    kept: dict[int, tuple[int, int]] = {}  # step to the first byte and the size of its row
    moved = 0
    with path.open("rb") as source, damaged.open("ab") as aside:

        def content(place: tuple[int, int]) -> bytes:
            source.seek(place[0])
            return source.read(place[1]).rstrip(b"\r\n") + b"\n"

        def move(line: bytes) -> None:
            nonlocal moved
            aside.write(line.rstrip(b"\r\n") + b"\n")
            moved += 1

        for line in read(path):
            if line.torn:
                break
            if line.row is None or line.skipped:
                move(line.content[: line.skipped] if line.row else line.content)
            if line.row is None or line.row["step"] > last:
                continue
            step = line.row["step"]
            place = (line.start + line.skipped, len(line.content) - line.skipped)
            if step in kept and (before := content(kept[step])) != content(place):
                move(before)
            kept[step] = place
        aside.flush()
        os.fsync(aside.fileno())
        with atomic_files.replacing(path) as out:
            out.writelines(content(kept[step]) for step in sorted(kept))
    if not moved and not damaged.stat().st_size:
        with contextlib.suppress(OSError):
            damaged.unlink()
    return moved
