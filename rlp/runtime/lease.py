"""Let only one process at a time use a folder, by a lease and, if the file system has it, a lock.

The lease is a file that names the process that holds the folder, with a counter that the process
increments while it lives. A process that finds a lease waits for the time after which a lease
expires: if the lease was renewed meanwhile, the folder is in use; otherwise its owner is gone. Each
side measures only the time that passes on its own machine, so no clocks are compared. An owner that
could not renew its lease in time (it was suspended, or the file system did not respond) reads the
lease again before it writes anything, and stops if another process has taken the folder.

A lock (flock) gives the answer at once instead of after a minute, on file systems that support it.
A lock alone is not sufficient: network file systems and mounted buckets often lock within one
machine only, or not at all.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rlp.runtime import atomic_files, disk_errors, hosts, run_folder, signals
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

LOGGER = logging.getLogger(__name__)

RENEWED_EVERY_S = 10.0
EXPIRES_AFTER_S = 60.0  # seconds without a renewal after which a lease expires
SETTLES_IN_S = 2.0  # seconds after which processes that took a folder simultaneously see each other
SIZE = 512  # bytes of the file, which is written in one piece so that nobody reads half of it
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
# On these file systems a lock proves that no other machine holds the folder.
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "apfs"}


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a folder.

    Attributes:
      host: Name of the machine.
      machine: Identifies this boot of the machine and the namespace of its process ids.
      pid: Id of the process.
      since: Local time, for messages.
      token: Identifies this lease.
      renewals: Number of times that the lease was renewed.
    """

    host: str
    machine: str
    pid: int
    since: str
    token: str
    renewals: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether `pid` is a process id in the namespace of this process."""
        return self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended."""
        if not self.is_here:
            return False
        if self.pid == os.getpid():  # process ids are reused
            return self.token not in _HELD
        return not atomic_files.is_running(self.pid)


_HELD: set[str] = set()  # tokens of the leases of this process


class Lease:
    """A folder that this process holds."""

    def __init__(self, folder: Path, lock: int | None, created: list[Path]) -> None:
        """Write the lease, replacing an expired one.

        Args:
          folder: The folder to hold.
          lock: Descriptor of the locked file; None if the file system has no locks.
          created: Folders that were created for the lease, innermost first; `release` removes them
            if they are empty.
        """
        self._path, self._lock, self._created = folder / run_folder.LEASE, lock, created
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        self._owner = Owner(socket.gethostname(), _machine(), os.getpid(), since, uuid.uuid4().hex)
        self._other: Owner | None = None  # the process that has taken the folder from this one
        self._changing = threading.RLock()  # reentrant: a signal handler may call `release`
        self._ended = threading.Event()
        self._taken = self._renewed = _now()
        self._sure = lock is not None and _file_system(folder) in _LOCAL
        _write(self._path, self._owner)
        _HELD.add(self._owner.token)
        self._forget = signals.before_end(self.release)
        threading.Thread(target=self._renew_for_ever, daemon=True, name="lease").start()

    def check(self) -> None:
        """Verify that this process still holds the folder. Call it before every write.

        Raises:
          UserError: If another process has taken the folder.
        """
        if not self._sure:  # another process may have taken it at the same moment
            time.sleep(max(0.0, self._taken + SETTLES_IN_S - _now()))
        if not self._sure or _now() - self._renewed > EXPIRES_AFTER_S / 2:
            with disk_errors.writing(self._path):
                self._renew()
            self._sure = True
        if self._other is not None:
            raise UserError(
                f"{self._path.parent} is held by {self._other}: this process did not renew its "
                "lease in time, or both started at the same moment; it stops before its next "
                "write; wait until the other process ends, then run the same command again"
            )

    def release(self) -> None:
        """Release the folder."""
        self._ended.set()
        with self._changing:
            if self._owner.token not in _HELD:
                return
            _HELD.remove(self._owner.token)
            self._forget()
            with contextlib.suppress(OSError, UserError):  # a lease that is not removed expires
                if (current := _read(self._path)) and current.token == self._owner.token:
                    self._path.unlink()
            if self._lock is not None:
                os.close(self._lock)
            with contextlib.suppress(OSError):  # not empty
                for folder in self._created:
                    folder.rmdir()

    def _renew_for_ever(self) -> None:
        while not self._ended.wait(RENEWED_EVERY_S) and self._other is None:
            with contextlib.suppress(OSError, UserError):  # `check` reports the error
                self._renew()

    def _renew(self) -> None:
        with self._changing:
            if self._ended.is_set() or self._other is not None:
                return
            before, current = _now(), _read(self._path)
            if current is not None and current.token != self._owner.token:
                self._other = current
                return
            self._owner = dataclasses.replace(self._owner, renewals=self._owner.renewals + 1)
            _write(self._path, self._owner)
            self._renewed = before


class NoLease:
    """The lease of every process but process 0. Such a process writes nothing by itself."""

    def check(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def held(folder: Path, activity: str = "being trained") -> Iterator[Lease | NoLease]:
    """Hold a folder while the context is entered. The folder is created if it does not exist.

    All processes of a run call this; process 0 holds the folder.

    Args:
      folder: Folder of a run or an experiment.
      activity: What the owner does with the folder, for messages.

    Raises:
      UserError: If another process holds the folder, or the folder cannot be written.
    """
    leases: list[Lease] = []

    def take() -> None:
        with disk_errors.writing(folder):
            leases.append(_take(folder, activity, _make(folder)))

    hosts.agree(take)
    lease = leases[0] if leases else NoLease()
    try:
        yield lease
    finally:
        lease.release()


def _take(folder: Path, activity: str, created: list[Path]) -> Lease:
    path = folder / run_folder.LEASE
    lock, busy = _lock(path)
    try:
        owner = _read(path)
        if busy and (owner is None or owner.is_here):
            raise _held_by(folder, activity, owner)
        free = owner is None or owner.has_ended or (lock is not None and owner.is_here)
        if owner is not None and not free:
            _wait_for_expiry(path, activity, owner)
        return Lease(folder, lock, created)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise


def _lock(path: Path) -> tuple[int | None, bool]:
    """Lock a file, which is created if it does not exist.

    Returns:
      The descriptor of the locked file, and whether another process holds the lock. The descriptor
      is None in that case, and if the file system has no locks.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file, False  # otherwise the owner has just removed the file
        except BlockingIOError:
            os.close(file)
            return None, True
        except OSError as error:
            os.close(file)
            if error.errno in _NO_LOCKS:
                return None, False
            raise
        os.close(file)


def _wait_for_expiry(path: Path, activity: str, owner: Owner) -> None:
    """Wait until a lease expires or is released.

    Raises:
      UserError: If the lease is renewed meanwhile.
    """
    LOGGER.warning(
        "%s was %s by %s; waiting up to %.0f s to see whether that process still renews its lease",
        *(path.parent, activity, owner, EXPIRES_AFTER_S),
    )
    start = _now()
    while _now() - start < EXPIRES_AFTER_S:
        time.sleep(min(1.0, EXPIRES_AFTER_S / 10))
        current = _read(path)
        if current is None:
            return
        if (current.token, current.renewals) != (owner.token, owner.renewals):
            raise _held_by(path.parent, activity, current)


def _held_by(folder: Path, activity: str, owner: Owner | None) -> UserError:
    return UserError(
        f"{folder} is {activity} by {owner or 'another process'}; wait until that process ends, "
        "stop it, or use another folder"
    )


def _make(folder: Path) -> list[Path]:
    """Create a folder and its parents. Returns the folders that did not exist, innermost first."""
    folder = folder.absolute()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _read(path: Path) -> Owner | None:
    """Return the owner that a lease names; None if the lease does not exist or is empty.

    Raises:
      UserError: If the file is not a lease.
    """
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    if not text:
        return None
    try:
        return Owner(**parse(text.decode()))
    except (ValueError, TypeError):
        raise UserError(
            f"{path} is not a lease written by a run; move the file, or use another folder"
        ) from None


def _write(path: Path, owner: Owner) -> None:
    """Write a lease in one piece into the locked file."""
    content = json.dumps(dataclasses.asdict(owner)).encode().ljust(SIZE - 1) + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        if os.pwrite(file, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    finally:
        os.close(file)


def _machine() -> str:
    """Identify this boot of this machine and the namespace of its process ids."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()} {os.readlink(namespace)}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder; "" if it is not known."""
    target, mounts = folder.resolve(), Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    longest, kind = -1, ""
    for line in mounts.read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        root = Path(before.split(" ")[4].replace("\\040", " "))
        if target.is_relative_to(root) and len(root.parts) >= longest:
            longest, kind = len(root.parts), after.split(" ")[0]
    return kind


def _now() -> float:
    """Return the seconds that have passed on this machine, including suspended time."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
