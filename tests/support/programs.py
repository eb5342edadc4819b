"""Run `python -m launch.<name>` without the seconds that the imports of each program take.

A server imports the modules that the programs share, before jax starts a backend, and forks for
every command line. So each program has its own process, as for a user, with its own exit status,
and can receive signals. Tests use the server through the fixture `programs`.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.support.paths import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
LONGEST = 400  # seconds that a program may take
# This does not include the programs of `launch`, because each is run as `__main__`.
SHARED = (
    *("launch.program", "rlp.evaluation.generation.single", "rlp.run.experiment", "rlp.run.loop"),
    *("rlp.run.export_model", "rlp.run.import_model"),
)
OPTIONAL = ("torch", "transformers.models.auto")


class Ran(NamedTuple):
    """The result of a program."""

    status: int
    out: str
    err: str


class Program:
    """A running program, whose output goes to files."""

    def __init__(self, ask: Callable[..., Any], words: list[str], out: Path, err: Path) -> None:
        self.words, self._ask, self._out, self._err = words, ask, out, err
        self.pid = ask("start", words=words, out=str(out), err=str(err))
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the program runs."""
        if self._status is None:
            self._status = self._ask("poll", pid=self.pid)
        return self._status

    def send(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = LONGEST) -> Ran:
        """Wait for the program, which must end within `seconds`, and return its result."""
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < end, f"{self.words} still runs after {seconds} s"
            time.sleep(0.005)
        return Ran(status, self._out.read_text(), self._err.read_text())


class Programs:
    """Starts programs. Use it as a context manager, which ends the server at the end."""

    def __init__(self, log: Path) -> None:
        """Start the server; the output of programs goes to the folder `log`."""
        self._log = log
        self._started = 0
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.support.programs"],
            cwd=ROOT, env=os.environ | ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def _ask(self, what: str, **details: Any) -> Any:
        self._server.stdin.write(json.dumps({"what": what, **details}) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    @contextlib.contextmanager
    def started(
        self,
        words: list[str],
        folder: Path,
        *,
        file_limit: int = 0,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Program]:
        """Start a program, and kill it at the end if it still runs.

        Args:
          words: Module and flags, such as "launch.train" and its flags.
          folder: Working directory.
          file_limit: Maximum size of a file in bytes; 0 for no limit.
          environment: Variables that differ from those of this process.
        """
        files = [self._log / f"{self._started}.{name}" for name in ("out", "err")]
        self._started += 1
        details = {"folder": str(folder), "file_limit": file_limit, "environment": {**environment}}
        ask = lambda what, **more: self._ask(what, **more, **details)
        program = Program(ask, list(map(str, words)), *files)
        try:
            yield program
        finally:
            program.send(signal.SIGKILL)
            program.wait()

    def run(self, words: list[str], folder: Path, **options: Any) -> Ran:
        """Run a program to its end; see `started` for the arguments."""
        with self.started(words, folder, **options) as program:
            return program.wait()


def _serve() -> None:
    _import_shared_modules()
    for line in sys.stdin:
        request = json.loads(line)
        if request["what"] == "poll":
            ended, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif not (answer := os.fork()):
            _run(**request)
        print(json.dumps(answer), flush=True)


def _import_shared_modules() -> None:
    for name in SHARED:
        importlib.import_module(name)
    for name in OPTIONAL:
        with contextlib.suppress(ImportError):  # tests that need the module are skipped
            importlib.import_module(name)


def _run(
    words: list[str], folder: str, out: str, err: str, file_limit: int,
    environment: dict[str, str], **_: Any,
) -> None:  # fmt: skip
    """Run a program in the forked process, and end the process."""
    os.chdir(folder)
    sys.path.insert(0, folder)  # as `python -m` does
    os.environ.update(environment)
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), number)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = list(words)
    status: Any = 0
    try:
        runpy.run_module(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0  # the programs exit with integers
    except BaseException:  # noqa: BLE001  it is printed, as Python does
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a normal exit would take a second because of all the imports


if __name__ == "__main__":
    _serve()
