"""Join the processes of a multihost run, log to the run directory, and end together.

A process that fails notifies the others, and they detect it if a process is killed
(`rlp.runtime.heartbeat`). In both cases all processes stop.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NoReturn, Self

import jax

# JAX's detection of clusters has no public name.
from jax._src import clusters

from rlp.runtime import consistency, disk_errors, hosts, process_log, rendezvous, signals
from rlp.runtime.consistency import Member
from rlp.runtime.display import error_lines, printable
from rlp.runtime.errors import USER_ERROR, UserError
from rlp.runtime.heartbeat import Heartbeat
from rlp.runtime.run_folder import LOGS

JOIN_TIMEOUT_S = 300
# Seconds after which JAX's coordinator counts a process as dead; `rlp.runtime.heartbeat` is faster.
HEARTBEAT_TIMEOUT_S = 100
GRACE_S = 2.0  # seconds within which one failure may show up on several processes
SHARED_S = 60.0  # seconds within which a new file of one host appears on another
FAILURE = 1  # exit status after an error other than a UserError, or after the loss of a process
FLAGS = "--coordinator_address, --num_processes and --process_id"
RESTART = "start all processes again to resume from the last checkpoint"

_joined: "Joined | None" = None


def set_log_folder(workdir: Path, claim: Callable[[], None]) -> None:
    """Make the next `open_log` use this folder: an experiment keeps its logs in its own folder, not
    in that of its first arm.

    Args:
      workdir: Folder of the experiment.
      claim: Called on process 0 before anything is written there.
    """
    if _joined is not None:
        _joined.log_folder = workdir, claim


def open_log(workdir: Path) -> None:
    """Move the log of each process to the run directory, once the run may write there.

    All processes call this in the same order. Calls after the first one do nothing.

    Args:
      workdir: The run directory.

    Raises:
      UserError: On all processes, if they do not see the same folder, or cannot write to it.
    """
    if hosts.count() == 1 or _joined is None or _joined.log.in_workdir:
        return
    folder, claim = _joined.log_folder or (workdir, lambda: None)
    hosts.agree(claim)
    try:
        _joined.log.keep(folder)
    except OSError as error:
        raise UserError(f"{folder / LOGS} cannot be written: {error.strerror}") from error
    hosts.compare(_joined.log.header, lambda headers: _unseen(folder, headers))


def _unseen(workdir: Path, headers: Mapping[Member, str]) -> str:
    """Describe the first process whose log does not appear on this host; "" if all logs do."""
    end = time.monotonic() + SHARED_S
    for member, header in headers.items():
        path = process_log.path_in(workdir, member.process)
        while not (path.is_file() and header in path.read_text(errors="replace")):
            if time.monotonic() > end:
                return (
                    f"--workdir={workdir} is not shared by all hosts: {member} has written "
                    f"{path.name} there, and {next(iter(headers))} does not see it after "
                    f"{SHARED_S:.0f} s; use a folder that all hosts share"
                )
            time.sleep(0.2)
    return ""


class Joined:
    """A context manager that makes this process part of a multihost run.

    Enter it before any JAX device is used. Leaving it waits for the other processes, except after
    an error: then it notifies the others, prints the error on one line, writes the traceback to the
    log, and ends the process at once, with status 2 after a UserError and 1 after any other error.
    """

    log: process_log.ProcessLog
    log_folder: tuple[Path, Callable[[], None]] | None = None  # set by `set_log_folder`

    def __init__(
        self,
        address: str | None = None,
        num_processes: int | None = None,
        process: int | None = None,
        timeout: int = JOIN_TIMEOUT_S,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Store the arguments; entering the context joins the run.

        Args:
          address: "HOST:PORT" of process 0. If this or one of the next two arguments is None, it is
            read from the environment of Cloud TPU, SLURM, GKE or Open MPI.
          num_processes: Number of processes.
          process: Number of this process, from 0.
          timeout: Seconds to wait for the other processes.
          facts: Names and JSON values that must be the same on all processes, in addition to code
            and library versions.
        """
        self._arguments, self._timeout, self._facts = (
            (address, num_processes, process),
            timeout,
            facts,
        )
        self._ending, self._failed = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        """Join the other processes.

        Raises:
          UserError: If the environment does not describe a cluster, the port is in use, the other
            processes do not join in time, or their inputs differ.
        """
        global _joined
        address, num_processes, process, devices = _detect_cluster(*self._arguments, self._timeout)
        self._me = Member(process, socket.gethostname())
        facts = {**self._facts, **consistency.program_facts()}
        peers = rendezvous.join(address, num_processes, process, facts, self._timeout)
        command = " ".join(sys.argv)
        title = (
            f"process {process} of {num_processes} on {self._me.host}, pid {os.getpid()}: {command}"
        )
        self.log = process_log.ProcessLog(process, title)
        self._watch = Heartbeat(peers, self._stop_with_the_others)
        self._watch.start()
        self._forget = signals.before_end(self._stopped_by_signal)
        try:
            _initialize(address, num_processes, process, devices, self._timeout)
        except RuntimeError as error:
            self._fail(error)
        if process != 0:
            self.log.quiet(logging.ERROR)
        _joined = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _joined
        if error is not None:
            self._fail(error)
        hosts.barrier()
        self._forget()
        self._watch.leave()
        _joined = None
        jax.distributed.shutdown()
        self.log.close()

    def _stop_with_the_others(self, end: Mapping[str, Any]) -> None:
        """End this process because another one has ended. Called in the heartbeat thread."""
        self._ending.set()
        if not self._failed.wait(GRACE_S):
            self.log.write_stacks()
        other = f"process {end['process']} on {end['host']}"
        if "lost" in end:
            reason = f"{other} {end['lost']} ({self._log_of(end['process'])}); {RESTART}"
        else:
            reason = f"{other} failed: {end['message']}"
        self.log.show(printable(f"error: {self._me} stops because {reason}"))
        # Process 0 releases the folder, unless its file system does not answer.
        release = threading.Thread(target=signals.clean_up, daemon=True)
        release.start()
        release.join(GRACE_S)
        if end.get("status") == USER_ERROR:
            self.log.discard()
        _end(end.get("status", FAILURE))

    def _stopped_by_signal(self) -> None:
        """Notify the others when a signal ends this process while there is nothing to save."""
        if not self._ending.is_set():
            self._watch.notify({**self._me._asdict(), "lost": "was stopped by a signal"})

    def _log_of(self, process: int) -> str:
        if not self.log.in_workdir:
            return f"the log of {self._me} is {self.log.path}"
        return f"its log is {process_log.path_in(self.log.path.parent.parent, process)}"

    def _fail(self, error: BaseException) -> NoReturn:
        """Print the error on one line, notify the other processes, and end this one."""
        error = disk_errors.as_user_error(error) or error
        if isinstance(error, UserError):
            self.log.show(error_lines(error))
            self._notify(USER_ERROR, " ".join(str(error).split()))
            self.log.discard()
            _end(USER_ERROR)
        self.log.write("".join(traceback.format_exception(error)))
        self._failed.set()
        # This error may be only a consequence of the end of another process.
        if self._ending.wait(GRACE_S):
            threading.Event().wait()  # the heartbeat thread prints the reason and ends this process
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split())[:500])
        self.log.show(f"error: {self._me} failed: {reason}; the traceback is in {self.log.path}")
        self._notify(FAILURE, f"{reason}; its traceback is in {self.log.path}")
        _end(FAILURE)

    def _notify(self, status: int, message: str) -> None:
        self._watch.notify({**self._me._asdict(), "status": status, "message": message})


def _detect_cluster(
    address: str | None, num_processes: int | None, process: int | None, timeout: int
) -> tuple[str, int, int, Sequence[int] | None]:
    """Read missing arguments from the environment, as `jax.distributed.initialize` does.

    Returns:
      The address of process 0, the number of processes, the number of this process, and the ids of
      its local devices (None for all).
    """
    address = address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    device_ids = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    devices: Sequence[int] | None = list(map(int, device_ids.split(","))) if device_ids else None
    try:
        address, num_processes, process, devices = (
            clusters.ClusterEnv.auto_detect_unset_distributed_params(
                address, num_processes, process, devices, None, timeout
            )
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"{socket.gethostname()} cannot find the other processes: {error}; give {FLAGS}"
        ) from error
    if address is None or num_processes is None or process is None:
        raise UserError(
            f"the environment of {socket.gethostname()} does not describe the processes of the run "
            f"as Cloud TPU, SLURM, GKE or Open MPI do; give {FLAGS}"
        )
    return address, num_processes, process, devices


def _initialize(
    address: str, num_processes: int, process: int, devices: Sequence[int] | None, timeout: int
) -> None:
    """Initialize jax.distributed."""
    jax.distributed.initialize(
        address,
        num_processes,
        process,
        local_device_ids=devices,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX replaced it in C++


def _end(status: int) -> NoReturn:
    """End the process from any thread without waiting for the others, which may not respond."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
