"""Write a report in a separate process, whose memory is released when it exits.

The training process starts it when a run ends. It does not import JAX, so it neither waits for the
accelerator nor allocates its memory.
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
ROOT = Path(__file__).resolve().parents[2]  # the folder that contains the package `rlp`
GRACE_S = 2.0  # time for the process to exit by itself
ERROR = "error: "  # prefix of the line printed before exiting with USER_ERROR


def write_report_separately(folders: Sequence[Path], out: Path) -> None:
    """Run `rlp.report.write_report` in another process.

    Args:
      folders: As in `write_report`.
      out: As in `write_report`.

    Raises:
      UserError: As in `write_report`, or if the process fails in another way.
    """
    command = [sys.executable, "-P", "-m", "rlp.report", str(out), *map(str, folders)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile() as stderr:
        # The child exits when its standard input closes, that is, however this process ends.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=stderr, env=os.environ | {"PYTHONPATH": path}
        )
        try:
            process.wait()
        finally:
            _end(process)
        stderr.seek(0)
        lines = stderr.read().decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        raise UserError(_reason(process.returncode, lines, out))
    for line in lines:
        LOGGER.warning("%s", line)


def _end(process: subprocess.Popen) -> None:
    """End the process if it is still running, and wait for it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(status: int, lines: Sequence[str], out: Path) -> str:
    """Return one line that says why the report was not written."""
    last = lines[-1] if lines else ""
    if status == USER_ERROR and last.startswith(ERROR):
        return last.removeprefix(ERROR)
    how = last or f"exit status {status}"
    if status < 0:
        how = f"its process was killed by {signal.Signals(-status).name}"
    return (
        f"{out} could not be written: {how}; the run itself is saved, and running the same command "
        "again writes the report"
    )
