"""Start the processes of a multihost run on this machine."""

import concurrent.futures
import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlp.runtime import rendezvous
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

# A line of it: [Gloo] Rank 0 is connected to 1 peer ranks. Expected number of … ranks is : 1
_PARTS_OF_GLOO = re.compile(
    r"\[Gloo\]|Rank|is connected to|peer ranks\.|"
    r"Expected number of connected peer ranks is :|\d|\s"
)


def free_address() -> str:
    """Return an address with an unused port of this machine."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{tried.getsockname()[1]}"


class Processes(list):
    """The running processes of a run, process 0 first; their output is in files in `folder`."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def wait(self, seconds: float) -> list[int]:
        """Wait until all processes have ended, and return their exit statuses."""
        end = time.monotonic() + seconds
        return [process.wait(max(0, end - time.monotonic())) for process in self]

    def out(self, process: int) -> str:
        """Return the stdout of a process, without what the Gloo library prints there.

        Gloo reports the connections of each rank in one line. Its threads write the parts of these
        lines without a lock, so the parts of one may follow those of another in any order.
        """
        lines = (self._folder / f"{process}.out").read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not _of_gloo(line))

    def err(self, process: int) -> str:
        return (self._folder / f"{process}.err").read_text()


def _of_gloo(line: str) -> bool:
    return not _PARTS_OF_GLOO.sub("", line)


@contextlib.contextmanager
def started(
    command: Callable[[str, int], list[str]], number: int, folder: Path, devices: int = 2
) -> Iterator[Processes]:
    """Start processes, and kill those that still run at the end.

    Args:
      command: Returns a command line, given the address of process 0 and the process number.
      number: Number of processes.
      folder: Working directory, which also contains their output.
      devices: Number of devices of each process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address, running = free_address(), Processes(folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)}
    with contextlib.ExitStack() as files:
        try:
            for i in range(number):
                out, err = (
                    files.enter_context((folder / f"{i}.{name}").open("w"))
                    for name in ("out", "err")
                )
                running.append(
                    subprocess.Popen(
                        command(address, i), cwd=folder, env=environment, stdout=out, stderr=err
                    )
                )
            yield running
        finally:
            for process in running:
                process.kill()
                process.wait()


def join_all(*processes, address=None, timeout=10.0):
    """Call `rendezvous.join` in a thread for every (number, process, facts).

    Returns:
      For each process its peers, or the error message.
    """
    address = address or free_address()

    def join(process):
        try:
            return rendezvous.join(address, *process, timeout)
        except UserError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(join, processes))


def close(*connections):
    """Close the connections that `join_all` returned."""
    for peers in connections:
        for peer in peers:
            peer.socket.close()
