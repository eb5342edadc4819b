"""Report disk errors in one line with their cure, most of them before anything is written."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from rlp.runtime.errors import UserError

# Advice on what to do once the disk error is fixed.
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
    errno.ENOTDIR: "name a path of which every part is a folder",
    errno.ELOOP: "repair the links, or name another folder",
    errno.EIO: "the disk may be failing; name another one",
    errno.ESTALE: "the network file system has lost the file; mount it again",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files; end other programs",
}
_PERMIT = "change its permissions, or name another path"
# TensorStore, with which Orbax writes arrays, reports disk errors as text.
_IN_TEXT = re.compile(r"os_error_code='(\d+)'")


@contextlib.contextmanager
def writing(target: Path, then: str = "") -> Iterator[None]:
    """Convert disk errors into a UserError that names `target`, the reason and the cure.

    Args:
      target: The file or folder that is being written.
      then: What to do after the cure, such as `RESUME`.

    Raises:
      UserError: If the body raises a disk error. Other errors pass through.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        code = _code(error)
        if code is None:
            raise
        cure = _CURES.get(code, "fix that error, or name another path")
        file = getattr(error, "filename", None)
        inside = f" ({file})" if file and Path(os.fsdecode(file)) != target else ""
        raise UserError(
            f"{target} cannot be written: {os.strerror(code)}{inside}; {cure}"
            + (f", then {then}" if then else "")
        ) from error


def as_user_error(error: BaseException) -> UserError | None:
    """Convert a disk error that `writing` has not converted; return None for other errors."""
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
    """Return the errno of a disk error; None for any other error."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if str(error).startswith("Symlink loop"):  # from pathlib in Python 3.11
        return errno.ELOOP
    match = _IN_TEXT.search(str(error))
    return int(match[1]) if match else None


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError unless `folder` can be written, or created. Writes nothing."""
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
                        "which does not exist; create that folder, or name another one"
                    ) from None
                path = path.parent
        if not stat.S_ISDIR(mode):
            is_target = path == folder.absolute()
            raise UserError(
                f"{folder} is a file; give a folder"
                if is_target
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
    """Whether a relative path from an untrusted file stays inside its folder.

    Only the name is checked: the file may be a link, as in the cache of the Hugging Face hub.
    """
    escapes = name.startswith("/") or "\\" in name or "\0" in name
    return bool(name.strip()) and not escapes and ".." not in name.split("/")


def refuse_name(kind: str, name: str) -> None:
    """Raise UserError if `name` cannot be the name of a subfolder.

    Args:
      kind: What the user has named, such as "an arm".
      name: The name.
    """
    visible = name.isprintable() and name.strip() == name and not name.startswith(".")
    if not (name and visible and is_inside(name)) or "/" in name or len(os.fsencode(name)) > 200:
        raise UserError(
            f"{kind} cannot be called {name!r}, because the name is also that of its folder; use "
            "letters, digits and + = , _ - (at most 200 bytes)"
        )


def refuse_other(path: Path, mark: str) -> None:
    """Raise UserError if `path` exists and is not an earlier version of the file to write.

    Args:
      path: The file to write.
      mark: Regular expression that matches in the first 4096 bytes of every version of the file.
    """
    with writing(path):
        if not os.path.lexists(path):
            return
        if path.is_file():
            with path.open("rb") as file:
                if re.search(mark.encode(), file.read(4096)):
                    return
    raise UserError(
        f"{path} exists already and is not what would be written there; move it, or name another "
        "file"
    )
