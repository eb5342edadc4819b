"""Several processes as one run: how they meet, who writes, how they agree, how they end.

Every process of a run executes the same program on its own devices. The first one (process 0)
alone writes files and shows progress; what depends on the file system it decides for all (`agree`).
A process that fails tells the others, who stop too. Where nothing was joined, a process is the
first of one, and nothing here waits.
"""

import contextlib
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
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the coordinator's key-value store has no public name
from jax.experimental.multihost_utils import process_allgather

from rlp import disk
from rlp.errors import UserError
from rlp.shown import error_lines, printable

T = TypeVar("T")

JOIN_TIMEOUT_S = 300
HEARTBEAT_TIMEOUT_S = 30  # after which JAX's coordinator takes a silent process for dead
FOREVER_MS = 7 * 24 * 3600 * 1000  # waits that only a dead process would make endless
GRACE_S = 2.0  # in which a process that hears of a failure may meet the same one itself
USER_ERROR, FAILURE = 2, 1  # exit statuses
END = "rlp/end"  # key: why the run ends, {} if it is finished

_rounds = itertools.count()


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


class Joined:
    """While entered, this process is one of several. Enter before anything asks JAX for a device.

    Leaving it waits for the others. An error does not: it is told to the others and shown, and the
    process ends at once, with status 2 after a UserError and with 1 after any other.
    """

    def __init__(
        self,
        address: str | None = None,
        number: int | None = None,
        process: int | None = None,
        timeout: int = JOIN_TIMEOUT_S,
    ) -> None:
        """Nothing is joined yet.

        Args:
          address: "HOST:PORT" of the first process; None, like the next two, asks the environment
            of Cloud TPU, SLURM, GKE or Open MPI.
          number: of processes.
          process: which of them this is, from 0.
          timeout: seconds to wait for the others.
        """
        self._arguments = address, number, process, timeout

    def __enter__(self) -> Self:
        """Meets the others.

        Raises:
          UserError: the environment says nothing of a cluster, or the port is taken. (If the others
            do not come in time, one line says so and the process ends with status 2, from a thread:
            JAX's own wait cannot be interrupted.)
        """
        _join(*self._arguments)
        if not is_first():
            logging.getLogger("rlp").setLevel(logging.ERROR)
        self._watcher = threading.Thread(target=_stop_with_the_others, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            _fail(error)
        barrier()
        if is_first():
            _client().key_value_set(END, "{}", True)
        self._watcher.join()
        jax.distributed.shutdown()


def _join(address: str | None, number: int | None, process: int | None, timeout: int) -> None:
    if address and process == 0:
        _check_port(address)
    patience = threading.Timer(timeout, _give_up, (process, number, timeout))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            address,
            number,
            process,
            initialization_timeout=timeout + 60,  # its own end is an abort with a stack trace
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    except ValueError as error:
        raise UserError(
            f"the environment of {socket.gethostname()} does not say who the others are as Cloud "
            "TPU, SLURM, GKE or Open MPI do; give --coordinator_address, --num_processes and "
            f"--process_id ({error})"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"{socket.gethostname()} cannot join the other processes: {error}"
        ) from error
    finally:
        patience.cancel()
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX has put its own in place


def _check_port(address: str) -> None:
    """Refuses a port that is in use; the coordinator would crash on it."""
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator_address={address}: port {port} of {socket.gethostname()} cannot be "
                f"opened ({error.strerror}); take another port, the same on all hosts"
            ) from error


def _give_up(process: int | None, number: int | None, timeout: int) -> None:
    """Ends a process that the others did not join, with one line on what it waited for."""
    state = distributed.global_state
    address = state.coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    me = state.process_id if process is None else process
    who = f"process {me}{f' of {number}' if number else ''} on {socket.gethostname()}"
    if address is None:
        line = f"{who} found no coordinator in its environment within {timeout} s"
    elif me == 0:
        line = (
            f"{who} waited {timeout} s at {address} for the other processes, and not all came; "
            "start them all, with one --num_processes"
        )
    elif _answers(address):
        line = (
            f"{who} found the coordinator at {address}, but not all processes joined it within "
            f"{timeout} s; start them all, with one --num_processes and each --process_id once"
        )
    else:
        line = (
            f"{who} waited {timeout} s for the coordinator at {address}, and nothing answers there;"
            " start process 0 on that host, or correct --coordinator_address"
        )
    _end(f"error: {line} (--join_timeout={timeout})", USER_ERROR)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _stop_with_the_others() -> None:
    """Waits for the end of the run; ends this process if another one has failed."""
    end = json.loads(_client().blocking_key_value_get(END, FOREVER_MS))
    me = distributed.global_state.process_id
    if end and end["process"] != me:
        time.sleep(GRACE_S)
        who = f"process {me} on {socket.gethostname()}"
        failed = f"process {end['process']} on {end['host']}"
        _end(f"error: {who} stops, for {failed} has: {end['message']}", end["status"])


def _fail(error: BaseException) -> NoReturn:
    """Shows the error, tells the other processes, and ends this one."""
    me = distributed.global_state.process_id
    error = disk.told(error) or error
    user = isinstance(error, UserError)
    shown = error_lines(error) if isinstance(error, UserError) else ""
    text = " ".join(str(error).split()) if user else "".join(traceback.format_exception(error))
    end = {
        "process": me,
        "host": socket.gethostname(),
        "status": USER_ERROR if user else FAILURE,
        "message": text if user else f"{type(error).__name__}; see what it wrote",
    }
    print(shown or text, file=sys.stderr, flush=True)
    with contextlib.suppress(RuntimeError):  # the coordinator is gone; so are the others, then
        _client().key_value_set(END, json.dumps(end), True)
    if me == 0:
        time.sleep(2 * GRACE_S)  # with us the others lose the coordinator, and could not say why
    _end("", USER_ERROR if user else FAILURE)


def _end(line: str, status: int) -> NoReturn:
    """Ends the process from any thread, without waiting for the others, who may not answer."""
    if line:
        print(printable(line), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _client() -> distributed._jax.DistributedRuntimeClient:
    client = distributed.global_state.client
    assert client is not None, "no run of several processes was joined"
    return client
