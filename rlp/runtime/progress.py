"""Progress bars, which are animated in a terminal and printed as lines elsewhere."""

import sys
from typing import TextIO

from tqdm import tqdm

from rlp.runtime import hosts
from rlp.runtime.display import printable


class _Lines:
    """A stream for tqdm without a terminal, which prints each state on its own line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress(total: int | None, initial: int = 0, label: str = "", unit: str = "step") -> tqdm:
    """Return a progress bar on stderr with rate and remaining time; call `update(1)` and close it.

    The bar is a context manager. If stderr is not a terminal, it prints a line at the start, every
    30 s, and at the end. Only process 0 shows it, and it is not shown if `total` is 0.

    Args:
      total: Number of units of the whole stage; None if it is not known.
      initial: Number of units that are already done, for example before a resume.
      label: Name of the stage.
      unit: Name of a unit.
    """
    shared = {"total": total, "initial": initial, "desc": printable(label), "unit": unit}
    if total == 0 or not hosts.is_first():
        return tqdm(**shared, disable=True)
    if sys.stderr.isatty():
        return tqdm(**shared, dynamic_ncols=True, mininterval=0.5)
    return tqdm(**shared, file=_Lines(sys.stderr), ncols=100, mininterval=30, maxinterval=30)
