"""One process of several: it joins the others, logs into the folder of the run, and ends with them.

A process that fails tells the others, and one that is killed is noticed by them
(`rlp.runtime.heartbeat`); either way the others stop, too.
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

# What clusters say of themselves has no public name.
from jax._src import clusters

from rlp.runtime import consistency, disk_errors, hosts, process_log, rendezvous, signals
from rlp.runtime.consistency import Who
from rlp.runtime.display import error_lines, printable
from rlp.runtime.errors import USER_ERROR, UserError
from rlp.runtime.heartbeat import Heartbeat
from rlp.runtime.run_folder import LOGS

JOIN_TIMEOUT_S = 300
# After which JAX's coordinator counts a process as dead; `rlp.runtime.heartbeat` should be faster.
HEARTBEAT_TIMEOUT_S = 100
GRACE_S = 2.0  # in which a process that hears of a failure may meet the same one itself
SHARED_S = 60.0  # in which a new file of one host appears on another
FAILURE = 1  # exit status of a process that fails otherwise, or loses another one

_joined: "Joined | None" = None


def log_in(workdir: Path, claim: Callable[[], None]) -> None:
    """Has the next `open_log` open the logs in another folder than its own: those of an experiment
    are in its folder, not in that of its first arm.

    Args:
      workdir: of the experiment.
      claim: called on process 0 before anything is written there.
    """
    if _joined is not None:
        _joined.log_folder = workdir, claim


def open_log(workdir: Path) -> None:
    """Moves the log of each process to the folder of the run, once it is certain to be its folder.

    Only the first call of a process does something. All call this in the same order.

    Args:
      workdir: of the run.

    Raises:
      UserError: on all processes, if they do not see the same folder, or cannot write there.
    """
    if hosts.count() == 1 or _joined is None or _joined.log.kept:
        return
    folder, claim = _joined.log_folder or (workdir, lambda: None)
    hosts.agree(claim)
    try:
        _joined.log.keep(folder)
    except OSError as error:
        raise UserError(f"{folder / LOGS} cannot be written: {error.strerror}") from error
    hosts.compare(_joined.log.header, lambda headers: _unseen(folder, headers))


def _unseen(workdir: Path, headers: Mapping[Who, str]) -> str:
    """One line on the first process whose log does not appear here; "" if all of them do."""
    end = time.monotonic() + SHARED_S
    for who, header in headers.items():
        path = process_log.path_in(workdir, who.process)
        while not (path.is_file() and header in path.read_text(errors="replace")):
            if time.monotonic() > end:
                return (
                    f"--workdir={workdir} is not one folder: {who} has written {path.name} into "
                    f"its own, which {next(iter(headers))} does not see; name a folder that all "
                    "hosts share"
                )
            time.sleep(0.2)
    return ""


class Joined:
    """While entered, this process is one of several. Enter before anything asks JAX for a device.

    Leaving it waits for the others. An error does not: it is told to the others and shown in one
    line, its traceback goes to the log, and the process ends at once, with status 2 after a
    UserError and with 1 after any other.
    """

    log: process_log.ProcessLog
    log_folder: tuple[Path, Callable[[], None]] | None = None  # as `log_in` has been given it

    def __init__(
        self,
        address: str | None = None,
        number: int | None = None,
        process: int | None = None,
        timeout: int = JOIN_TIMEOUT_S,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Nothing is joined yet.

        Args:
          address: "HOST:PORT" of the first process; None, like the next two, asks the environment
            of Cloud TPU, SLURM, GKE or Open MPI.
          number: of processes.
          process: which of them this is, from 0.
          timeout: seconds to wait for the others.
          facts: what all processes must have been given alike, besides code and libraries: name ->
            JSON value.
        """
        self._arguments, self._timeout, self._facts = (address, number, process), timeout, facts
        self._ending, self._failed = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        """Meets the others.

        Raises:
          UserError: the environment says nothing of a cluster, the port is taken, the others do not
            come in time, or they were given something else.
        """
        global _joined
        address, number, process, devices = _place(*self._arguments, self._timeout)
        self._me = Who(process, socket.gethostname())
        facts = {**self._facts, **consistency.of_program()}
        peers = rendezvous.call_roll(address, number, process, facts, self._timeout)
        command = " ".join(sys.argv)
        what = f"process {process} of {number} on {self._me.host}, pid {os.getpid()}: {command}"
        self.log = process_log.ProcessLog(process, what)
        self._watch = Heartbeat(peers, self._stop_with_the_others)
        self._watch.start()
        self._forget = signals.before_end(self._stopped_by_signal)
        try:
            _initialize(address, number, process, devices, self._timeout)
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
        """Ends this process, in the thread of the watch, because another one has ended."""
        self._ending.set()
        if not self._failed.wait(GRACE_S):
            self.log.write_stacks()
        other = f"process {end['process']} on {end['host']}"
        if "lost" in end:
            what = f"{other} {end['lost']}{self._log_of(end['process'])}"
        else:
            what = f"{other} failed: {end['message']}"
        self.log.say(printable(f"error: {self._me} stops, because {what}"))
        # Process 0 releases the folder, unless its file system does not answer.
        release = threading.Thread(target=signals.clean_up, daemon=True)
        release.start()
        release.join(GRACE_S)
        if end.get("status") == USER_ERROR:
            self.log.forget()
        _end(end.get("status", FAILURE))

    def _stopped_by_signal(self) -> None:
        """Tells the others, when a signal ends this process while there is nothing to save."""
        if not self._ending.is_set():
            self._watch.tell({**self._me._asdict(), "lost": "was stopped by a signal"})

    def _log_of(self, process: int) -> str:
        if not self.log.kept:
            return f" (what this process did is in {self.log.path})"
        return f" (its log is {process_log.path_in(self.log.path.parent.parent, process)})"

    def _fail(self, error: BaseException) -> NoReturn:
        """Shows the error in one line, tells the other processes, and ends this one."""
        error = disk_errors.as_user_error(error) or error
        if isinstance(error, UserError):
            self.log.say(error_lines(error))
            self._tell(USER_ERROR, " ".join(str(error).split()))
            self.log.forget()
            _end(USER_ERROR)
        self.log.write("".join(traceback.format_exception(error)))
        self._failed.set()
        # What fails here may only follow from the end of another process.
        if self._ending.wait(GRACE_S):
            threading.Event().wait()  # the watch ends this process, and says why
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split())[:500])
        self.log.say(f"error: {self._me} failed: {reason}; the traceback is in {self.log.path}")
        self._tell(FAILURE, f"{reason}; its traceback is in {self.log.path}")
        _end(FAILURE)

    def _tell(self, status: int, message: str) -> None:
        self._watch.tell({**self._me._asdict(), "status": status, "message": message})


def _place(
    address: str | None, number: int | None, process: int | None, timeout: int
) -> tuple[str, int, int, Sequence[int] | None]:
    """Address of process 0, number of processes, which one this is, its devices (None for all), as
    given or as the environment says, in the way of `jax.distributed.initialize`."""
    address = address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    listed = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    devices: Sequence[int] | None = list(map(int, listed.split(","))) if listed else None
    try:
        address, number, process, devices = (
            clusters.ClusterEnv.auto_detect_unset_distributed_params(
                address, number, process, devices, None, timeout
            )
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{socket.gethostname()} cannot find the others: {error}") from error
    if address is None or number is None or process is None:
        raise UserError(
            f"the environment of {socket.gethostname()} does not say who the others are as Cloud "
            "TPU, SLURM, GKE or Open MPI do; give --coordinator_address, --num_processes and "
            "--process_id"
        )
    return address, number, process, devices


def _initialize(
    address: str, number: int, process: int, devices: Sequence[int] | None, timeout: int
) -> None:
    """Joins JAX's own cluster."""
    jax.distributed.initialize(
        address,
        number,
        process,
        local_device_ids=devices,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX has put its own in place


def _end(status: int) -> NoReturn:
    """Ends the process from any thread, without waiting for the others, who may not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
