"""Run a benchmark in a separate process and read the JSON line that it prints."""

import json
import os
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command

# As `rlp.runtime.allocator` does in this project: the process keeps freed memory.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**24),
}


class RunFailed(Exception):
    """A benchmark printed no result; the message is one line with its name and the reason."""


def run_line(
    words: Sequence[str],
    name: str,
    threads: int,
    needed: Sequence[str],
    *,
    limit_s: float | None = None,
    log: Path | None = None,
    statuses: Collection[int] = (0,),
) -> dict:
    """Run a benchmark and return the last JSON object that it printed.

    Args:
      words: its command line.
      name: its name in errors.
      threads: number of CPUs to which it is pinned, the same ones for every benchmark.
      needed: names of numbers that the object must contain.
      limit_s: seconds after which it is killed; None for no limit.
      log: file to which its stderr is appended.
      statuses: exit statuses with which it may end.

    Raises:
      RunFailed: If it cannot be started, fails, takes too long, or prints no such object.
    """
    pinned = command.cpus(threads)
    with log.open("a+b") if log else tempfile.TemporaryFile() as errors:
        begin = errors.tell()
        try:
            done = subprocess.run(
                words,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=limit_s,
                env=os.environ | KEEP_MEMORY | {"OMP_NUM_THREADS": str(threads)},
                preexec_fn=lambda: os.sched_setaffinity(0, pinned),
            )
        except OSError as error:
            raise RunFailed(f"{name} cannot be started: {error}") from error
        except subprocess.TimeoutExpired as expired:
            raise RunFailed(f"{name} was stopped after {limit_s:.0f} s") from expired
        errors.seek(begin)
        printed = errors.read().decode(errors="replace").strip().splitlines()
    if done.returncode not in statuses:
        reason = printed[-1] if printed else "nothing on stderr"
        raise RunFailed(f"{name} ended with status {done.returncode}: {reason}")
    line = _last_object(done.stdout)
    if line is None:
        raise RunFailed(f"{name} printed no JSON line")
    if missing := [key for key in needed if not isinstance(line.get(key), int | float)]:
        raise RunFailed(f"the JSON line of {name} lacks the numbers {', '.join(missing)}")
    return line


def _last_object(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            return value
    return None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))
