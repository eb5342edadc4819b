"""Write one report: `python -m rlp.report OUT FOLDER …`; see `rlp.report.separate_process`.

The process exits when its standard input is closed, because its parent is gone. It prints notes on
damaged files to stderr, one line each, and exits with status 2 after a UserError, printed as one
line.
"""

import logging
import os
import sys
import threading
from pathlib import Path

from rlp import report
from rlp.report.separate_process import ERROR
from rlp.runtime.errors import USER_ERROR, UserError

NICENESS = 10  # yield to other processes on the machine


def _end_with_standard_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def main(out: str, *folders: str) -> int:
    """Write the report, and return the exit status."""
    os.nice(NICENESS)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    try:
        report.write_report([Path(folder) for folder in folders], Path(out))
    except UserError as error:
        print(f"{ERROR}{' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
