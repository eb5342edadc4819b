"""The report in a process of its own, whose memory is gone when it ends.

The process that trains starts it when a run ends. It computes nothing with JAX and does not import
it, so it neither waits for the accelerator nor takes a part of its memory.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlp.runtime.errors import USER_ERROR, UserError

LOGGER = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]  # that has the package `rlp`
GRACE_S = 2.0  # in which the process may end by itself
ERROR = "error: "  # begins the line of a process that ends with USER_ERROR


def write_report_separately(folders: Sequence[Path], out: Path) -> None:
    """`rlp.report.write_report` in another process.

    Args:
      folders, out: as of `write_report`.

    Raises:
      UserError: as `write_report` does, or the process ended otherwise; one line.
    """
    words = [sys.executable, "-P", "-m", "rlp.report", str(out), *map(str, folders)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile() as said:
        # Its standard input ends when this process does, however that ends; it ends then, too.
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stderr=said, env=os.environ | {"PYTHONPATH": path}
        )
        try:
            process.wait()
        finally:
            _end(process)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        raise UserError(_reason(process.returncode, lines, out))
    for line in lines:
        LOGGER.warning("%s", line)


def _end(process: subprocess.Popen) -> None:
    """Ends the process, if it still runs, and waits for that."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(status: int, lines: Sequence[str], out: Path) -> str:
    """One line on why there is no report."""
    last = lines[-1] if lines else ""
    if status == USER_ERROR and last.startswith(ERROR):
        return last.removeprefix(ERROR)
    how = last or f"exit status {status}"
    if status < 0:
        how = f"its process was ended by {signal.Signals(-status).name}"
    return (
        f"{out} could not be made: {how}; what was trained is saved, and the same command makes "
        "the report"
    )
