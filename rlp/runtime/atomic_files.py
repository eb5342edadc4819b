"""Files and folders that appear whole or not at all, and outlast a power cut once they are there.

Everything that a run writes goes through here, with three exceptions: metrics.jsonl grows line by
line, Orbax writes the arrays of checkpoints, and a lease has to stay in the file that is locked.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlp.runtime import disk_errors
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import finite


def refuse_existing(out: Path) -> None:
    """Raises UserError if there is anything of this name, or nothing can be written there."""
    if os.path.lexists(out):
        raise UserError(f"{out} exists already; remove it or name another folder")
    disk_errors.refuse_unwritable(out)


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, and is removed on any exception.

    Every file is on the disk by then. What killed processes left of the same `out` is removed.

    Raises:
      OSError: `out` cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = _temporary(out)
    try:
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        folder.rename(out)
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    _sync(out.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` at the end, with its content on the disk by then.

    Raises:
      OSError: it cannot be written; what was there before is unchanged, as on any exception.
    """
    file = _temporary(path)
    try:
        with file.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        file.replace(path)
    finally:
        file.unlink(missing_ok=True)
    _sync(path.parent)  # else the old file, or none, may be there after a power cut


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, as `replacing` does."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """`write_whole` of a JSON value; a number that is not finite becomes null."""
    write_whole(path, json.dumps(finite(content), indent=1, allow_nan=False))


def _temporary(path: Path) -> Path:
    """A name beside `path`, once what killed processes of this machine left behind is removed.

    What has our own process id is of a process before us: in a container, ids come again.
    """
    start = f".{path.name}.unfinished-"
    for left in [left for left in path.parent.iterdir() if left.name.startswith(start)]:
        pid = left.name.removeprefix(start)
        if pid.isdecimal() and (int(pid) == os.getpid() or not runs(int(pid))):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}")


def runs(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, for another user
        return True
    return True


def _sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call for folders, whose names they keep at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
