"""Folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rlp import disk
from rlp.errors import UserError


def refuse_existing(out: Path) -> None:
    """Raises UserError if there is anything of this name, or nothing can be written there."""
    if os.path.lexists(out):
        raise UserError(f"{out} exists already; remove it or name another folder")
    disk.refuse_unwritable(out)


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, and is removed on any exception.

    Every file is on the disk by then. What killed processes left of the same `out` is removed.

    Raises:
      OSError: `out` cannot be written.
    """
    start = f".{out.name}.unfinished-"
    out.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(out.parent, start)
    folder = out.parent / f"{start}{os.getpid()}"
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


def _clear_leftovers(parent: Path, start: str) -> None:
    """Removes what killed processes of this machine left behind.

    A folder with our own process id is of a process before us: in a container, ids come again.
    """
    for path in [path for path in parent.iterdir() if path.name.startswith(start)]:
        pid = path.name.removeprefix(start)
        if pid.isdecimal() and (int(pid) == os.getpid() or not _runs(int(pid))):
            shutil.rmtree(path)


def _runs(pid: int) -> bool:
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
    finally:
        os.close(descriptor)
