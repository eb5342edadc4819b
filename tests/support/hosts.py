"""Several processes on this machine that are one run, as hosts of a cluster are."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlp.runtime import rendezvous
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT


def free_address() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{tried.getsockname()[1]}"


class Processes(list):
    """Started processes of one run, process 0 first, with their output in files of `folder`."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def wait(self, seconds: float) -> list[int]:
        """Their exit statuses, once all have ended."""
        end = time.monotonic() + seconds
        return [process.wait(max(0, end - time.monotonic())) for process in self]

    def out(self, process: int) -> str:
        """What a process wrote to stdout, without the words of the library of the collectives."""
        lines = (self._folder / f"{process}.out").read_text().splitlines(keepends=True)
        return "".join(line for line in lines if "[Gloo]" not in line)

    def err(self, process: int) -> str:
        return (self._folder / f"{process}.err").read_text()


@contextlib.contextmanager
def started(
    words: Callable[[str, int], list[str]], number: int, folder: Path, devices: int = 2
) -> Iterator[Processes]:
    """Starts `number` processes with `devices` each; those that still run at the end are killed.

    Args:
      words: address of the first process, process -> its command line.
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
                        words(address, i), cwd=folder, env=environment, stdout=out, stderr=err
                    )
                )
            yield running
        finally:
            for process in running:
                process.kill()
                process.wait()


def roll(*given, address=None, timeout=10.0):
    """Outcome of `call_roll` for every (number, process, facts): its peers, or the refusal."""
    address = address or free_address()

    def call(one):
        try:
            return rendezvous.call_roll(address, *one, timeout)
        except UserError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(call, given))


def close(*outcomes):
    """Closes the connections of outcomes of `roll`."""
    for peers in outcomes:
        for peer in peers:
            peer.socket.close()
