"""The log of one of several processes: what its terminal should not drown in, and nobody may lose.

C++ libraries write to file descriptor 2 whenever they like: JAX's coordination service alone writes
dozens of lines when a process dies. While a `ProcessLog` is open, descriptor 2 is a file, and
Python's `sys.stderr` is the terminal. The file gets tracebacks and log records too. At first it is
a temporary file, since nothing may be written to a workdir that could still be refused; `keep`
moves it to logs/process-N.log there.
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
    """Where a process of a run has its log."""
    return workdir / LOGS / f"process-{process}.log"


class ProcessLog:
    """The log of this process, from its making to `close`."""

    def __init__(self, process: int, what: str) -> None:
        """Redirects file descriptor 2.

        Args:
          process: number of this process.
          what: one line on this process, which follows the date at the beginning of the log.
        """
        self._process = process
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.header = f"--- {now} {what}"
        descriptor, name = tempfile.mkstemp(prefix=f"rlp-process-{process}-", suffix=".log")
        self.path, self.kept = Path(name), False
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
        faulthandler.enable(2)  # a crash in C++ leaves the Python stacks in the log
        self.write(self.header)

    def keep(self, workdir: Path) -> None:
        """Appends what was written so far to the log in a workdir, and writes there from now on.

        The file is closed once in between: a mounted bucket shows it to other hosts only then.
        """
        path, temporary = path_in(workdir, self._process), self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(temporary.read_bytes())
        self._open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
        self.path, self.kept = path, True
        temporary.unlink()

    def write(self, text: str) -> None:
        """Appends to the log; what a full disk does not take is lost, and stops nothing."""
        with contextlib.suppress(OSError):
            os.write(2, (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace"))

    def write_stacks(self) -> None:
        """Appends what all threads of Python are doing."""
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(2)

    def say(self, line: str) -> None:
        """Shows a line in the terminal, and appends it to the log."""
        with contextlib.suppress(OSError):
            print(line, file=self._terminal, flush=True)
        self.write(line)

    def quiet(self, level: int) -> None:
        """Has handlers of logging show only what is at least as bad in the terminal."""
        for handler in logging.getLogger().handlers:
            if handler is not self._handler:
                handler.setLevel(level)

    def forget(self) -> None:
        """Removes the temporary file, of which nothing was kept because nothing is worth it."""
        if not self.kept:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives descriptor 2 back to the terminal."""
        faulthandler.disable()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        threading.excepthook = self._hook
        logging.getLogger().removeHandler(self._handler)
        self._replace_stream(self._terminal, self._python)
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self.forget()

    def _open(self, descriptor: int) -> None:
        os.dup2(descriptor, 2)
        os.close(descriptor)

    @staticmethod
    def _replace_stream(old: Any, new: Any) -> None:
        """Has Python, and handlers of logging, which keep the stream that they found, write to
        another one."""
        sys.stderr = new
        for handler in logging.getLogger().handlers:
            handler = getattr(handler, "python_handler", handler)  # that of absl has one inside
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """Writes the traceback of a thread that has failed to the log."""
        error = failed.exc_value
        logging.getLogger("rlp").error("a thread failed: %r", error, exc_info=error)


class _Log(io.TextIOBase):
    """The log as the stream of a handler."""

    def __init__(self, log: ProcessLog) -> None:
        self._log = log

    def write(self, text: str) -> int:
        if text.strip():
            self._log.write(text)
        return len(text)


def _pause_before_abort() -> None:
    """Gives an abort six seconds.

    JAX's client aborts the process a few milliseconds after process 0 has died, from a thread of
    C++, so that no code of Python can say who is gone. The handler of SIGABRT is therefore
    `sleep` of the C library, which may be called in a handler; it takes the number of the signal,
    6, as seconds. The other threads, with the one that watches the processes, keep running.
    """
    c = ctypes.CDLL(None)
    c.signal.argtypes, c.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    c.signal(signal.SIGABRT, ctypes.cast(c.sleep, ctypes.c_void_p))
