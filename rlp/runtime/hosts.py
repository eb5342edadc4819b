"""Several processes as one run: how they meet, who writes, how they agree, how they end.

Every process of a run executes the same program on its own devices. The first one (process 0)
alone writes files and shows progress; what depends on the file system it decides for all (`agree`).
What all must have been given alike is compared before it is used (`check_same`). A process that
fails tells the others, and one that is killed is noticed by them (`rlp.runtime.rendezvous`); either
way the others stop, too. Where nothing was joined, a process is the first of one, and nothing here
waits.
"""

import itertools
import json
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
from typing import Any, NoReturn, Self, TypeVar

import jax
import numpy as np

# Neither the coordinator's key-value store nor what clusters say of themselves has a public name.
from jax._src import clusters, distributed
from jax.experimental.multihost_utils import process_allgather

from rlp.runtime import consistency, disk_errors, process_log, rendezvous, signals
from rlp.runtime.consistency import Who
from rlp.runtime.display import error_lines, printable
from rlp.runtime.errors import USER_ERROR, UserError
from rlp.runtime.fingerprints import Fingerprint
from rlp.runtime.run_folder import LOGS

T = TypeVar("T")

JOIN_TIMEOUT_S = 300
# After which JAX's coordinator counts a process as dead; `rlp.runtime.rendezvous` should be faster.
HEARTBEAT_TIMEOUT_S = 100
FOREVER_MS = 7 * 24 * 3600 * 1000  # waits that only a dead process would make endless
GRACE_S = 2.0  # in which a process that hears of a failure may meet the same one itself
SHARED_S = 60.0  # in which a new file of one host appears on another
FAILURE = 1  # exit status of a process that fails otherwise, or loses another one

_rounds = itertools.count()
_joined: "Joined | None" = None


def count() -> int:
    """How many processes the run has."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if count() > 1:
        _client().wait_at_barrier(f"rlp/barrier/{next(_rounds)}", FOREVER_MS)


def any_of(flag: bool) -> bool:
    """Whether the flag is true on any process; all call this in the same order."""
    return bool(process_allgather(np.array(flag)).any()) if count() > 1 else flag


def agree(decide: Callable[[], T]) -> T:
    """What `decide` returns on the first process, once all processes are here; its UserError too.

    All processes call this in the same order. What is read from or written to the file system in
    `decide` cannot be overtaken by another process.

    Args:
      decide: called on the first process only; returns a JSON value.
    """
    if count() == 1:
        return decide()
    key = f"rlp/agree/{next(_rounds)}"
    _client().wait_at_barrier(key, FOREVER_MS)
    if is_first():
        outcome: dict[str, Any]
        try:
            outcome = {"value": decide()}
        except UserError as error:
            outcome = {"error": str(error)}
        _client().key_value_set(key, json.dumps(outcome))
    outcome = json.loads(_client().blocking_key_value_get(key, FOREVER_MS))
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["value"]


def check_same(facts: Mapping[str, Any]) -> None:
    """Compares what every process was given; all call this in the same order.

    Args:
      facts: name -> JSON value, of this process.

    Raises:
      UserError: on all processes, if they differ; it names what differs and on which process.
    """
    if count() > 1:
        _compare(facts, lambda given: "".join(_refusals(given)))


def _refusals(given: Mapping[Who, Mapping[str, Any]]) -> list[str]:
    found = consistency.differences(given)
    return [consistency.refusal(found)] if found else []


def check_same_data(data: Mapping[str, Fingerprint]) -> None:
    """Compares the fingerprints of the data that every process has read, as `check_same` does."""
    if count() > 1:
        _compare(data, consistency.other_data)


def _compare(value: Any, compare: Callable[[dict[Who, Any]], str]) -> None:
    """Has process 0 compare a JSON value of every process; raises what it returns, if anything."""
    key = f"rlp/compare/{next(_rounds)}"
    me = distributed.global_state.process_id
    mine = json.dumps({"host": socket.gethostname(), "value": value})
    _client().key_value_set(f"{key}/{me}", mine)

    def refuse() -> None:
        found = [
            json.loads(_client().blocking_key_value_get(f"{key}/{i}", FOREVER_MS))
            for i in range(count())
        ]
        if line := compare({Who(i, f["host"]): f["value"] for i, f in enumerate(found)}):
            raise UserError(line)

    agree(refuse)
    _client().key_value_delete(f"{key}/{me}")


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
    if count() == 1 or _joined is None or _joined.log.kept:
        return
    folder, claim = _joined.log_folder or (workdir, lambda: None)
    agree(claim)
    try:
        _joined.log.keep(folder)
    except OSError as error:
        raise UserError(f"{folder / LOGS} cannot be written: {error.strerror}") from error
    _compare(_joined.log.header, lambda headers: _unseen(folder, headers))


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
        self._watch = rendezvous.Watch(peers, self._stop_with_the_others)
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
        barrier()
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
        error = disk_errors.told(error) or error
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


def _client() -> distributed._jax.DistributedRuntimeClient:
    client = distributed.global_state.client
    assert client is not None, "no run of several processes was joined"
    return client
