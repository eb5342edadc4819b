"""Errors of the disk as one line with their cure, most of them before anything is written."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from rlp.runtime.errors import UserError

# What else to do, after there is room.
RUN_AGAIN = "run the same command again"
RESUME = f"{RUN_AGAIN}, which resumes from the last checkpoint"

_CURES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or name another disk",
    errno.EACCES: "name a folder that you may write to",
    errno.EPERM: "name a folder that you may write to",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "name a path on which every part is a folder",
    errno.ELOOP: "repair the links, or name another folder",
    errno.EIO: "the disk may be failing; name another one",
    errno.ESTALE: "the network file system has lost the file; mount it again",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files; end other programs",
}
_PERMIT = "change its permissions, or name another place"
# TensorStore, which Orbax writes arrays with, reports errors of the disk as text.
_IN_TEXT = re.compile(r"os_error_code='(\d+)'")


@contextlib.contextmanager
def writing(place: Path, then: str = "") -> Iterator[None]:
    """Turns errors of the disk into a UserError that names `place`, the reason and the cure.

    Args:
      place: the file or the folder that is being written.
      then: what to do when the cure has been applied.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        code = _code(error)
        if code is None:
            raise
        cure = _CURES.get(code, "repair that, or name another place")
        file = getattr(error, "filename", None)
        inside = f" ({file})" if file and Path(os.fsdecode(file)) != place else ""
        raise UserError(
            f"{place} cannot be written: {os.strerror(code)}{inside}; {cure}"
            + (f", then {then}" if then else "")
        ) from error


def as_user_error(error: BaseException) -> UserError | None:
    """An error of the disk that nothing has given a name to, as one line; None for other errors."""
    if isinstance(error, UserError) or not isinstance(error, OSError | RuntimeError | ValueError):
        return None
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return UserError(f"{error.strerror}; set TMPDIR to a folder that can be written")
    code = _code(error)
    cure = {errno.EACCES: _PERMIT, errno.EPERM: _PERMIT}.get(code or 0) or _CURES.get(code or 0)
    if code is None or cure is None:
        return None
    file = getattr(error, "filename", None)
    where = os.fsdecode(file) if isinstance(file, str | bytes | Path) else "a file"
    return UserError(f"{where}: {os.strerror(code)}; {cure}")


def _code(error: Exception) -> int | None:
    """The number of the operating system for an error of the disk; None for any other error."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if str(error).startswith("Symlink loop"):  # pathlib's own, in Python 3.11
        return errno.ELOOP
    found = _IN_TEXT.search(str(error))
    return int(found[1]) if found else None


def refuse_unwritable(folder: Path) -> None:
    """Raises UserError unless `folder` is a folder that can be written, or can be made.

    Writes nothing.
    """
    with writing(folder):
        path = folder.absolute()
        while True:
            try:
                mode = path.stat().st_mode
                break
            except (FileNotFoundError, NotADirectoryError):
                if path.is_symlink():
                    raise UserError(
                        f"{folder} cannot be written: {path} is a link to {os.readlink(path)}, "
                        "which does not exist; make that folder, or name another"
                    ) from None
                path = path.parent
        if not stat.S_ISDIR(mode):
            here = path == folder.absolute()
            raise UserError(
                f"{folder} is a file; give a folder"
                if here
                else f"{folder} cannot be written, because {path} is a file; name another folder"
            )
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        longest = os.pathconf(path, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest for part in folder.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def is_inside(name: str) -> bool:
    """Whether a relative path, as a file of someone else's may give it, stays below its folder.

    It is judged by its name alone: what lies there may be a link, as in the hub's cache.
    """
    escapes = name.startswith("/") or "\\" in name or "\0" in name
    return bool(name.strip()) and not escapes and ".." not in name.split("/")


def refuse_name(kind: str, name: str) -> None:
    """Raises UserError if a name of the user's cannot be that of one folder inside another.

    Args:
      kind: what has the name, as in "an arm".
      name: that is to become the folder's.
    """
    visible = name.isprintable() and name.strip() == name and not name.startswith(".")
    if not (name and visible and is_inside(name)) or "/" in name or len(os.fsencode(name)) > 200:
        raise UserError(
            f"{kind} cannot be called {name!r}, since its folder has that name; use letters, "
            "digits and + = , _ - (at most 200 bytes)"
        )


def refuse_other(path: Path, mark: str) -> None:
    """Raises UserError if something else has the name of a file that is about to be written.

    Args:
      path: the file.
      mark: pattern that the first 4096 bytes of every such file contain, by which one that was
        written before is known.
    """
    with writing(path):
        if not os.path.lexists(path):
            return
        if path.is_file():
            with path.open("rb") as file:
                if re.search(mark.encode(), file.read(4096)):
                    return
    raise UserError(
        f"{path} exists already and is not what would be written there; move it away, or name "
        "another file"
    )
