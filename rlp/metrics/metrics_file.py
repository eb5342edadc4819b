"""Read, check and repair metrics.jsonl, line by line.

Kills, full disks, power failures and manual edits leave files with lines that are truncated,
joined, garbled, missing or out of order. `read` yields every line with whatever could be parsed,
and `missing` lists the missing steps. A resumed run repairs its file (`repair`); the report shows
what is there and notes what is missing.
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

LONGEST = 1 << 20  # bytes read of a line; the lines of a run have a few thousand
FIRST_KEY = b'{"step"'  # the beginning of every line
MOST_SPANS = 5  # ranges of steps that a message lists

Row = dict[str, Any]  # "step" maps to an int, every other name to a number or None
Span = tuple[int, int]  # first and last step of a range, inclusive


@dataclass(frozen=True)
class Line:
    """A line of metrics.jsonl.

    Attributes:
      start: Byte offset in the file.
      content: Its bytes, including the line end if there is one; at most the first `LONGEST`.
      row: Its metrics; None if they cannot be parsed.
      skipped: Number of bytes before the row: the remains of another, truncated line.
    """

    start: int
    content: bytes
    row: Row | None
    skipped: int = 0

    @property
    def torn(self) -> bool:
        """Whether this is an unfinished last line."""
        return self.row is None and not self.content.endswith(b"\n") and not self._endless

    @property
    def clean(self) -> bool:
        """Whether this is exactly one row and its line end."""
        return self.row is not None and not self.skipped and self.content.endswith(b"\n")

    @property
    def _endless(self) -> bool:
        return len(self.content) == LONGEST


def check(path: Path) -> None:
    """Raise UserError if `path` is not a regular file: reading or writing it might block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is not a regular file; move it away, then run the command again")


def read(path: Path) -> Iterator[Line]:
    """Yield every line of a metrics file, in the order of the file.

    Raises:
      UserError: If `path` is not a regular file.
      OSError: If the file cannot be read.
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
    """Parse a line of metrics; return None if it is not one."""
    try:
        row = parse(content.decode())
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(map(is_number, row.values())) else None


def is_number(value: object) -> bool:
    """Return whether `value` is None or a number that fits a float, including nan and inf."""
    if value is None or type(value) is float:
        return True
    return type(value) is int and abs(value) < 2**1023


def missing(steps: Iterable[int], last: int) -> list[Span]:
    """Return the ranges of steps 1 … `last` that are not in `steps`, which are in rising order."""
    spans, expected = [], 1
    for step in steps:
        if step > expected:
            spans.append((expected, step - 1))
        expected = max(expected, step + 1)
    return [*spans, (expected, last)] if expected <= last else spans


def in_words(spans: list[Span]) -> str:
    """Format ranges of steps: "step 3", or "steps 3, 5 to 9 and 12"."""
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    if len(texts) > MOST_SPANS:
        count = sum(last - first + 1 for first, last in spans[MOST_SPANS:])
        texts = [*texts[:MOST_SPANS], f"{count:,} more"]
    *head, tail = texts
    single = spans[0][0] == spans[-1][1]
    return f"step {tail}" if single else f"steps {', '.join(head)}{' and ' * bool(head)}{tail}"


def scan(path: Path, last: int, see: Callable[[Row], object]) -> tuple[int, list[Span]] | None:
    """Find the end of the lines up to step `last`, and the missing steps.

    Args:
      path: The metrics file.
      last: The last step to keep.
      see: Called with every row up to that step.

    Returns:
      The byte offset where these lines end and the missing ranges of steps, or None if the file
      must be repaired first.

    Raises:
      UserError, OSError: As in `read`.
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
    """Rewrite a metrics file so that it contains the steps up to `last`, each once, in order.

    If a step occurs twice, the later line is kept. Lines that cannot be parsed, and earlier lines
    of a step that occurs again with different metrics, are appended to `damaged`.

    Returns:
      The number of lines appended to `damaged`.

    Raises:
      UserError, OSError: As in `read`, or if a file cannot be written. `path` is then unchanged.
    """
    rows: dict[int, tuple[int, int]] = {}  # step -> offset and size of its row, in bytes
    moved = 0
    with path.open("rb") as source, damaged.open("ab") as aside:

        def content(span: tuple[int, int]) -> bytes:
            source.seek(span[0])
            return source.read(span[1]).rstrip(b"\r\n") + b"\n"

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
            span = (line.start + line.skipped, len(line.content) - line.skipped)
            if step in rows and (before := content(rows[step])) != content(span):
                move(before)
            rows[step] = span
        aside.flush()
        os.fsync(aside.fileno())
        with atomic_files.replacing(path) as out:
            out.writelines(content(rows[step]) for step in sorted(rows))
    if not moved and not damaged.stat().st_size:
        with contextlib.suppress(OSError):
            damaged.unlink()
    return moved
