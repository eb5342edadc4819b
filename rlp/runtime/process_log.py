"""The log file of each process of a multihost run, which keeps the terminal readable.

C++ libraries write to file descriptor 2 directly: JAX's coordination service alone writes dozens of
lines when a process dies. While a `ProcessLog` is open, descriptor 2 is the log file, and Python's
`sys.stderr` is the terminal. Tracebacks and log records also go to the file. At first it is a
temporary file, because nothing may be written to a workdir that may still be refused; `keep` moves
it to logs/process-N.log in the workdir.
"""

import contextlib
import ctypes
import datetime
import faulthandler
import io
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from rlp.runtime.run_folder import LOGS

_FORMAT = "%(levelname)s %(asctime)s %(name)s: %(message)s"


def path_in(workdir: Path, process: int) -> Path:
    """Return the path of the log of a process."""
    return workdir / LOGS / f"process-{process}.log"


class ProcessLog:
    """The log of this process, from its construction to `close`."""

    def __init__(self, process: int, description: str) -> None:
        """Redirect file descriptor 2 to the log.

        Args:
          process: Number of this process.
          description: One line about this process, which follows the date at the top of the log.
        """
        self._process = process
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.header = f"--- {now} {description}"
        descriptor, name = tempfile.mkstemp(prefix=f"rlp-process-{process}-", suffix=".log")
        self.path, self.in_workdir = Path(name), False
        self._saved = os.dup(2)
        os.set_inheritable(self._saved, False)
        self._python = sys.stderr
        self._terminal = io.TextIOWrapper(
            os.fdopen(os.dup(2), "wb", 0), "utf-8", "backslashreplace", write_through=True
        )
        self._python.flush()
        self._open(descriptor)
        self._replace_stream(self._python, self._terminal)
        self._handler = logging.StreamHandler(_Log(self))
        self._handler.setFormatter(logging.Formatter(_FORMAT))
        logging.getLogger().addHandler(self._handler)
        self._hook, threading.excepthook = threading.excepthook, self._thread_failed
        _pause_before_abort()
        faulthandler.enable(2)  # after a crash in C++ the Python stacks are in the log
        self.write(self.header)

    def keep(self, workdir: Path) -> None:
        """Append the log so far to the log file in a workdir, and continue there.

        The file is closed once in between, because only then do other hosts see it if the workdir
        is a mounted bucket.
        """
        path, temporary = path_in(workdir, self._process), self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(temporary.read_bytes())
        self._open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
        self.path, self.in_workdir = path, True
        temporary.unlink()

    def write(self, text: str) -> None:
        """Append to the log. Errors, such as a full disk, are ignored."""
        with contextlib.suppress(OSError):
            os.write(2, (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace"))

    def write_stacks(self) -> None:
        """Append the stacks of all Python threads."""
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(2)

    def show(self, line: str) -> None:
        """Print a line to the terminal and append it to the log."""
        with contextlib.suppress(OSError):
            print(line, file=self._terminal, flush=True)
        self.write(line)

    def quiet(self, level: int) -> None:
        """Set the minimum level of log records that are printed to the terminal."""
        for handler in logging.getLogger().handlers:
            if handler is not self._handler:
                handler.setLevel(level)

    def discard(self) -> None:
        """Remove the temporary file, unless `keep` has moved it."""
        if not self.in_workdir:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Restore descriptor 2 and logging."""
        faulthandler.disable()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        threading.excepthook = self._hook
        logging.getLogger().removeHandler(self._handler)
        self._replace_stream(self._terminal, self._python)
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self.discard()

    def _open(self, descriptor: int) -> None:
        os.dup2(descriptor, 2)
        os.close(descriptor)

    @staticmethod
    def _replace_stream(old: Any, new: Any) -> None:
        """Replace `sys.stderr`, also in logging handlers, which keep a reference to the stream."""
        sys.stderr = new
        for handler in logging.getLogger().handlers:
            handler = getattr(handler, "python_handler", handler)  # absl's handler wraps one
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Write the traceback of a failed thread to the log."""
        error = failure.exc_value
        logging.getLogger("rlp").error("a thread failed: %r", error, exc_info=error)


class _Log(io.TextIOBase):
    """The log as a stream for a logging handler."""

    def __init__(self, log: ProcessLog) -> None:
        self._log = log

    def write(self, text: str) -> int:
        if text.strip():
            self._log.write(text)
        return len(text)


def _pause_before_abort() -> None:
    """Delay an abort by six seconds.

    JAX's client aborts the process from a C++ thread a few milliseconds after process 0 has died,
    before Python code can report which process is gone. The handler of SIGABRT is therefore `sleep`
    of the C library, which is safe to call in a handler; its argument is the number of the signal,
    so it sleeps 6 seconds. The other threads, including the heartbeat, keep running.
    """
    c = ctypes.CDLL(None)
    c.signal.argtypes, c.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    c.signal(signal.SIGABRT, ctypes.cast(c.sleep, ctypes.c_void_p))
