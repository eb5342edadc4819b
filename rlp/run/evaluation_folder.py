"""The folder of an evaluation: only one that an evaluation began is written to again."""

from pathlib import Path

from rlp.runtime import disk_errors
from rlp.runtime.errors import UserError

RESPONSES = "responses"  # a folder with the responses of every model to the tasks of a suite
HARNESS = "harness.json"  # the scores in tasks of lm-evaluation-harness


def check(out: Path) -> None:
    """Refuse a folder with files of others, before anything is computed.

    Raises:
      UserError: If `out` has files but none of an evaluation, or cannot be written.
    """
    disk_errors.refuse_unwritable(out)
    ours = (out / RESPONSES).is_dir() or (out / HARNESS).is_file()
    if out.is_dir() and not ours and any(out.iterdir()):
        raise UserError(f"{out} has files that are not of an evaluation; name another --out")
