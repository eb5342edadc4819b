"""Access to files by local path or URL (gs://, s3://, memory://).

URLs are opened with fsspec, which needs an additional package for most protocols: gcsfs for gs://,
s3fs for s3://.
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
    """Return whether a path begins with a protocol."""
    return re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


@contextmanager
def server_errors_named(path: str) -> Iterator[None]:
    """Convert server errors in this context to a UserError that names the URL. Clients of servers
    raise errors of any class."""
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
    """Return whether a path is an existing file."""
    return _system(path).isfile(path) if is_url(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Return whether a path is an existing folder: at a URL, a prefix of other names."""
    return _system(path).isdir(path) if is_url(path) else os.path.isdir(path)


def matches(pattern: str) -> list[str]:
    """Return the files and folders that a glob matches, sorted; ** matches subfolders too."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    system = _system(pattern)
    urls = map(system.unstrip_protocol, system.glob(pattern))
    return sorted(url for url in urls if "/." not in url)  # local globs skip hidden files too


@dataclasses.dataclass(frozen=True)
class Listing:
    """The contents of a folder and its subfolders.

    Attributes:
      files: paths of regular files, sorted.
      hidden: files and folders whose names begin with a dot; they are not searched.
      unreadable: broken links.
      special: devices, FIFOs and sockets.
    """

    files: list[str]
    hidden: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    special: tuple[str, ...] = ()


def files_below(folder: str) -> Listing:
    """List the files of a folder and its subfolders, following links.

    A folder that several paths lead to is listed once, so links may form a loop.

    Raises:
      UserError: If a folder cannot be listed.
    """
    if is_url(folder):
        system = _system(folder)
        start = len(system.unstrip_protocol(folder.rstrip("/"))) + 1
        urls = sorted(map(system.unstrip_protocol, system.find(folder)))
        is_hidden = lambda url: "/." in f"/{url[start:]}"
        return Listing([url for url in urls if not is_hidden(url)], tuple(filter(is_hidden, urls)))
    seen = {os.path.realpath(folder)}
    paths: list[str] = []
    hidden: list[str] = []
    for parent, subfolders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        for name in (*subfolders, *names):
            if name.startswith("."):
                hidden.append(os.path.join(parent, name))
        paths += [os.path.join(parent, name) for name in names if not name.startswith(".")]
        # Real folders come before links, which may lead to them.
        visible = [name for name in subfolders if not name.startswith(".")]
        visible.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        subfolders.clear()  # os.walk descends into what this list contains afterwards
        for name in visible:
            real = os.path.realpath(os.path.join(parent, name))
            if real not in seen:
                seen.add(real)
                subfolders.append(name)
    paths.sort()
    return by_kind(paths, tuple(hidden))


def by_kind(paths: Sequence[str], hidden: tuple[str, ...] = ()) -> Listing:
    """Sort local paths, none of which is a folder, into files, broken links and special files."""
    kinds = [special_kind(path) for path in paths]
    select = lambda test: [
        path for path, kind in zip(paths, kinds, strict=True) if test(path, kind)
    ]
    return Listing(
        files=select(lambda path, kind: os.path.isfile(path)),
        hidden=hidden,
        unreadable=tuple(select(lambda path, kind: not kind and not os.path.isfile(path))),
        special=tuple(select(lambda path, kind: kind)),
    )


def special_kind(path: str) -> str:
    """Return "device", "FIFO" or "socket" if a local path leads to one, and "" otherwise. Reading
    one of these might never end."""
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
    """Return the bytes of a file; 0 if a server does not report them."""
    return (_system(path).size(path) or 0) if is_url(path) else os.path.getsize(path)


def identity(path: str) -> str:
    """Return a canonical name, the same for all paths that lead to a file."""
    if not is_url(path):
        return os.path.realpath(path)
    from fsspec.core import url_to_fs

    system, name = url_to_fs(path)
    return system.unstrip_protocol(name)


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Raises:
      UserError: If a local path is not a regular file.
    """
    with _system(path).open(path, "rb") if is_url(path) else _open_local(path) as file:
        yield file


def _open_local(path: str) -> BinaryIO:
    """Open a local file without blocking: opening a FIFO would wait for its other end."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UserError(f"{path}: not a regular file; set the field to files, folders or globs")
    return os.fdopen(number, "rb")


def _system(url: str) -> Any:
    """Return the fsspec file system of a URL.

    Raises:
      UserError: If the package for it is not installed, or the protocol is unknown.
    """
    import fsspec  # imported on demand: most runs read local files only

    protocol = url.partition("://")[0]
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = PACKAGES.get(protocol, "the package of fsspec for it")
        raise UserError(f"{url}: {protocol}:// needs {package}; pip install it") from error
    except ValueError as error:
        raise UserError(
            f"{url}: protocol {protocol}:// is not supported ({error}); copy the files to a disk"
        ) from error
