"""Where files of documents lie: on this machine, or at a URL (gs://, s3://, memory://).

URLs go through fsspec, which wants a package of its own for most of them: gcsfs for gs://, s3fs
for s3://.
"""

import dataclasses
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from rlp.runtime.errors import UserError

PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "abfs": "adlfs",
    "az": "adlfs",
}


def is_url(path: str) -> bool:
    """Whether a path begins with a protocol."""
    return re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


@contextmanager
def reached(path: str) -> Iterator[None]:
    """An error of a server in here as a UserError that names the URL; the clients of servers raise
    every class."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_url(path):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read: {type(error).__name__}: {reason}") from error


def is_file(path: str) -> bool:
    """Whether there is a file."""
    return _system(path).isfile(path) if is_url(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder: at a URL, anything below that name."""
    return _system(path).isdir(path) if is_url(path) else os.path.isdir(path)


def matches(pattern: str) -> list[str]:
    """The files and folders that a glob matches, sorted; ** stands for folders too."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    system = _system(pattern)
    found = map(system.unstrip_protocol, system.glob(pattern))
    return sorted(path for path in found if "/." not in path)  # hidden, as on this machine


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds, those below it included.

    Attributes:
      files: paths, sorted.
      hidden: files and folders whose names begin with a dot, which are left out.
      unreadable: links that lead nowhere.
      special: paths of what is neither a file nor a folder.
    """

    files: list[str]
    hidden: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    special: tuple[str, ...] = ()


def files_below(folder: str) -> Listing:
    """The files of a folder and of those below it, through links too.

    A folder that several paths lead to is listed once, so links may form a loop.

    Raises:
      UserError: a folder cannot be listed.
    """
    if is_url(folder):
        system = _system(folder)
        start = len(system.unstrip_protocol(folder.rstrip("/"))) + 1
        found = sorted(map(system.unstrip_protocol, system.find(folder)))
        is_hidden = lambda path: "/." in f"/{path[start:]}"
        shown = [path for path in found if not is_hidden(path)]
        return Listing(shown, tuple(filter(is_hidden, found)))
    seen = {os.path.realpath(folder)}
    paths: list[str] = []
    hidden: list[str] = []
    for where, below, names in os.walk(folder, followlinks=True, onerror=_refuse):
        for name in (*below, *names):
            if name.startswith("."):
                hidden.append(os.path.join(where, name))
        paths += [os.path.join(where, name) for name in names if not name.startswith(".")]
        # Folders that lie here come before links, which may lead to them.
        inner = [name for name in below if not name.startswith(".")]
        inner.sort(key=lambda name: (os.path.islink(os.path.join(where, name)), name))
        below.clear()
        for name in inner:
            real = os.path.realpath(os.path.join(where, name))
            if real not in seen:
                seen.add(real)
                below.append(name)
    paths.sort()
    return sorted_out(paths, tuple(hidden))


def sorted_out(paths: Sequence[str], hidden: tuple[str, ...] = ()) -> Listing:
    """Paths of this machine, none a folder, by what they lead to."""
    kinds = [special_kind(path) for path in paths]
    of = lambda wanted: [p for p, kind in zip(paths, kinds, strict=True) if wanted(p, kind)]
    return Listing(
        files=of(lambda path, kind: os.path.isfile(path)),
        hidden=hidden,
        unreadable=tuple(of(lambda path, kind: not kind and not os.path.isfile(path))),
        special=tuple(of(lambda path, kind: kind)),
    )


def special_kind(path: str) -> str:
    """What a path of this machine leads to, where that is neither a file nor a folder: "device",
    "FIFO" or "socket"; "" for others. Reading one of these might never end."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "device"
    return "FIFO" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else ""


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def size(path: str) -> int:
    """Bytes of a file; 0 where a server does not tell."""
    return (_system(path).size(path) or 0) if is_url(path) else os.path.getsize(path)


def identity(path: str) -> str:
    """One text for all the names that a file has."""
    if not is_url(path):
        return os.path.realpath(path)
    from fsspec.core import url_to_fs

    system, name = url_to_fs(path)
    return system.unstrip_protocol(name)


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """A file, to be read.

    Raises:
      UserError: it is neither a file nor a URL (any more).
    """
    with _system(path).open(path, "rb") if is_url(path) else _open_local(path) as file:
        yield file


def _open_local(path: str) -> BinaryIO:
    """Opens a file of this machine. Opening a FIFO would wait for its other end."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UserError(f"{path}: it is not a regular file; give files, folders or globs")
    return os.fdopen(number, "rb")


def _system(url: str) -> Any:
    """The file system of a URL.

    Raises:
      UserError: the package for it is not installed, or there is no such protocol.
    """
    import fsspec  # here: most runs read files of this machine

    protocol = url.partition("://")[0]
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = PACKAGES.get(protocol, "the package of fsspec for it")
        raise UserError(f"{url}: {protocol}:// needs {package}; pip install it") from error
    except ValueError as error:
        raise UserError(f"{url}: there is no way to read {protocol}:// here: {error}") from error
