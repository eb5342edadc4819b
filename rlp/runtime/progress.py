"""Progress bars: in a terminal they move, elsewhere they are lines."""

import sys
from typing import TextIO

from tqdm import tqdm

from rlp.runtime import hosts
from rlp.runtime.display import printable


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
