"""One process at a time in a folder: a lock where the file system has one, and a lease everywhere.

The lease is a file that names the process that holds the folder and counts up while that process
lives. A start that finds one waits for as long as a lease lives without a renewal: if it was
renewed meanwhile, the folder is taken, and else its owner is gone. Each side measures only time
that passes on its own machine, so no clocks are compared. An owner that could not renew its lease
in time (it was suspended, or the file system did not answer) reads it again before it writes
anything, and stops if another process has taken the folder.

The lock (flock) tells at once what the lease tells in a minute, on file systems that have it. It is
not enough alone: network file systems and mounted buckets often lock within one machine only, or
not at all.
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
EXPIRES_AFTER_S = 60.0  # without a renewal
SETTLES_IN_S = 2.0  # within which two processes that take a folder at once see each other
SIZE = 512  # bytes of the file, so that nobody reads half of one
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
# Where a lock that was obtained proves that no other machine has one.
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "apfs"}


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a folder.

    Attributes:
      host: name of the machine.
      machine: tells this boot of the machine, and the namespace of process numbers, from others.
      pid: number of the process.
      since: local time, for messages.
      token: tells this lease from all others.
      renewals: how often the lease was renewed.
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
        """Whether its process number means something in this process."""
        return self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, as far as can be told from here."""
        if not self.is_here:
            return False
        if self.pid == os.getpid():  # numbers are used again
            return self.token not in _HELD
        return not atomic_files.runs(self.pid)


_HELD: set[str] = set()  # tokens of the leases of this process


class Lease:
    """A folder that this process holds."""

    def __init__(self, folder: Path, lock: int | None, made: list[Path]) -> None:
        """Writes the lease, over an expired one if there is one.

        Args:
          folder: to hold.
          lock: descriptor of the locked file; None where there is no lock.
          made: folders that were made for it, the innermost first.
        """
        self._path, self._lock, self._made = folder / run_folder.LEASE, lock, made
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        self._owner = Owner(socket.gethostname(), _machine(), os.getpid(), since, uuid.uuid4().hex)
        self._other: Owner | None = None  # who has taken it from us
        self._changing = threading.RLock()  # a signal's handler may release what it interrupts
        self._ended = threading.Event()
        self._taken = self._renewed = _now()
        self._sure = lock is not None and _file_system(folder) in _LOCAL
        _write(self._path, self._owner)
        _HELD.add(self._owner.token)
        self._forget = signals.before_end(self.release)
        threading.Thread(target=self._renew_for_ever, daemon=True, name="lease").start()

    def check(self) -> None:
        """Call it before every write to the folder.

        Raises:
          UserError: another process has taken the folder.
        """
        if not self._sure:  # another process may have taken it in the same moment
            time.sleep(max(0.0, self._taken + SETTLES_IN_S - _now()))
        if not self._sure or _now() - self._renewed > EXPIRES_AFTER_S / 2:
            with disk_errors.writing(self._path):
                self._renew()
            self._sure = True
        if self._other is not None:
            raise UserError(
                f"{self._path.parent} is held by {self._other}, which found that this process had "
                "not renewed its lease, or started in the same moment; this process has stopped "
                "before its next write"
            )

    def release(self) -> None:
        """Lets go of the folder."""
        self._ended.set()
        with self._changing:
            if self._owner.token not in _HELD:
                return
            _HELD.remove(self._owner.token)
            self._forget()
            with contextlib.suppress(OSError, UserError):  # then it expires
                if (there := _read(self._path)) and there.token == self._owner.token:
                    self._path.unlink()
            if self._lock is not None:
                os.close(self._lock)
            with contextlib.suppress(OSError):  # not empty
                for folder in self._made:
                    folder.rmdir()

    def _renew_for_ever(self) -> None:
        while not self._ended.wait(RENEWED_EVERY_S) and self._other is None:
            with contextlib.suppress(OSError, UserError):  # `check` tells what is wrong
                self._renew()

    def _renew(self) -> None:
        with self._changing:
            if self._ended.is_set() or self._other is not None:
                return
            before, there = _now(), _read(self._path)
            if there is not None and there.token != self._owner.token:
                self._other = there
                return
            self._owner = dataclasses.replace(self._owner, renewals=self._owner.renewals + 1)
            _write(self._path, self._owner)
            self._renewed = before


class NoLease:
    """The lease of a process that is not the first of several, which writes nothing by itself."""

    def check(self) -> None:
        """Does nothing."""

    def release(self) -> None:
        """Does nothing."""


@contextlib.contextmanager
def held(folder: Path, doing: str = "being trained") -> Iterator[Lease | NoLease]:
    """Holds a folder, which is made if need be, for as long as it is entered.

    Of several processes the first one holds it; all call this.

    Args:
      folder: of a run or an experiment.
      doing: what its owner does with it, for messages.

    Raises:
      UserError: another process holds it, or it cannot be written.
    """
    taken: list[Lease] = []

    def take() -> None:
        with disk_errors.writing(folder):
            taken.append(_take(folder, doing, _make(folder)))

    hosts.agree(take)
    lease = taken[0] if taken else NoLease()
    try:
        yield lease
    finally:
        lease.release()


def _take(folder: Path, doing: str, made: list[Path]) -> Lease:
    path = folder / run_folder.LEASE
    lock, busy = _lock(path)
    try:
        there = _read(path)
        if busy and (there is None or there.is_here):
            raise _held_by(folder, doing, there)
        free = there is None or there.has_ended or (lock is not None and there.is_here)
        if there is not None and not free:
            _wait_for_expiry(path, doing, there)
        return Lease(folder, lock, made)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise


def _lock(path: Path) -> tuple[int | None, bool]:
    """Locks a file, which is made if need be: its descriptor, and whether another process has it
    locked; None and False where the file system has no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file, False  # and not one that its owner has just removed
        except BlockingIOError:
            os.close(file)
            return None, True
        except OSError as error:
            os.close(file)
            if error.errno in _NO_LOCKS:
                return None, False
            raise
        os.close(file)


def _wait_for_expiry(path: Path, doing: str, there: Owner) -> None:
    """Waits until a lease has expired, or is released.

    Raises:
      UserError: it was renewed.
    """
    LOGGER.warning(
        "%s was %s by %s; waiting %.0f s to see whether it still is",
        *(path.parent, doing, there, EXPIRES_AFTER_S),
    )
    begun = _now()
    while _now() - begun < EXPIRES_AFTER_S:
        time.sleep(min(1.0, EXPIRES_AFTER_S / 10))
        found = _read(path)
        if found is None:
            return
        if (found.token, found.renewals) != (there.token, there.renewals):
            raise _held_by(path.parent, doing, found)


def _held_by(folder: Path, doing: str, owner: Owner | None) -> UserError:
    who = owner or "another process"
    return UserError(
        f"{folder} is {doing} by {who}; wait until it ends, stop it, or take another folder"
    )


def _make(folder: Path) -> list[Path]:
    """Makes a folder and those around it; those that were not there, the innermost first."""
    folder = folder.absolute()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _read(path: Path) -> Owner | None:
    """The owner that a lease names; None if there is none.

    Raises:
      UserError: the file is something else.
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
            f"{path} is not a lease that a run has left; move it away, or take another folder"
        ) from None


def _write(path: Path, owner: Owner) -> None:
    """Writes a lease in one piece, into the file that is locked."""
    content = json.dumps(dataclasses.asdict(owner)).encode().ljust(SIZE - 1) + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        if os.pwrite(file, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    finally:
        os.close(file)


def _machine() -> str:
    """Tells this boot of this machine, and this namespace of process numbers, from others."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()} {os.readlink(namespace)}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _file_system(folder: Path) -> str:
    """The type of the file system of a folder; "" where that is not known."""
    place, mounts = folder.resolve(), Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    best, found = -1, ""
    for line in mounts.read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        root = Path(before.split(" ")[4].replace("\\040", " "))
        if place.is_relative_to(root) and len(root.parts) >= best:
            best, found = len(root.parts), after.split(" ")[0]
    return found


def _now() -> float:
    """Seconds that have passed on this machine, also while it was suspended."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
