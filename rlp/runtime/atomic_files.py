"""Write files and folders atomically and durably: they survive a power cut once they are visible.

A run writes all its files through this module, with three exceptions: metrics.jsonl grows line by
line, Orbax writes the arrays of checkpoints, and a lease must stay in the file that is locked.
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
    """Raise UserError if `out` exists or cannot be written."""
    if os.path.lexists(out):
        raise UserError(f"{out} exists already; remove it or name another folder")
    disk_errors.refuse_unwritable(out)


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `out`, which is renamed to `out` at the end.

    Every file is synced to disk before the rename; on any exception the folder is removed.
    Temporary folders of `out` that killed processes left behind are removed first.

    Raises:
      OSError: If `out` cannot be written.
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
    """Yield a temporary file, which is synced to disk and renamed to `path` at the end.

    Raises:
      OSError: If the file cannot be written. As on any exception, `path` is then unchanged.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)  # otherwise a power cut may bring back the old file, or no file


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically, as `replacing` does."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON value atomically; numbers that are not finite become null."""
    write_whole(path, json.dumps(finite(content), indent=1, allow_nan=False))


def _temporary(path: Path) -> Path:
    """Return a temporary name next to `path`, after removing the leftovers of killed processes.

    A leftover with our own process id belongs to an earlier process: containers reuse ids.
    """
    prefix = f".{path.name}.unfinished-"
    for leftover in [file for file in path.parent.iterdir() if file.name.startswith(prefix)]:
        pid = leftover.name.removeprefix(prefix)
        if pid.isdecimal() and (int(pid) == os.getpid() or not is_running(int(pid))):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f"{prefix}{os.getpid()}")


def is_running(pid: int) -> bool:
    """Whether a process with this id is running on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def _sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not support fsync on folders; they store names at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
