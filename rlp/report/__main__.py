"""Writes one report: `python -m rlp.report OUT FOLDER …`; see `rlp.report.separate_process`.

It ends when its standard input does, since nobody waits for it any more. Notes on what is damaged
go to stderr, a line each; a UserError is one line there, and exit status 2.
"""

import logging
import os
import sys
import threading
from pathlib import Path

from rlp import report
from rlp.report.separate_process import ERROR
from rlp.runtime.errors import USER_ERROR, UserError

NICENESS = 10  # whatever else runs on the machine goes first


def _end_with_standard_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def main(out: str, *folders: str) -> int:
    """Returns the exit status."""
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
