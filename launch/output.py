"""Output of the programs: streams of any encoding, logs, and errors as one line each.

`prepare` sets up the logs; `ending` is a context manager around the whole program.
"""

import contextlib
import io
import logging
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NoReturn, TextIO

from absl import flags
from absl import logging as absl_logging
from absl.logging import converter

from rlp.runtime import disk_errors
from rlp.runtime.display import error_lines, printable
from rlp.runtime.errors import USER_ERROR, UserError

_CACHE = re.compile(
    r"Error (writing|reading) persistent compilation cache entry[^:]*: (.*)", re.DOTALL
)


class Verbosity(flags.ArgumentParser[int]):
    """Parse --verbosity: a number as of absl, or the name of a level."""

    HELP = (
        "which log records are shown in the terminal and in logs/process-N.log: debug (1), info "
        "(0, the default), warning (-1) or error (-2); libraries log warnings only, except at debug"
    )
    _LEVELS: ClassVar = {"fatal": -3, "error": -2, "warning": -1, "info": 0, "debug": 1}

    def parse(self, argument: str | int) -> int:
        """Return the level of absl.

        Raises:
          ValueError: It is not a level.
        """
        text = str(argument).lower()
        level = self._LEVELS.get(text)
        if level is None and text in map(str, self._LEVELS.values()):
            level = int(text)
        if level is None:
            raise ValueError(f"use one of {', '.join(self._LEVELS)}, or -3 to 1")
        return level


def prepare(verbosity: int | None = None) -> None:
    """Set the levels of the logs, and escape control characters in their lines.

    Args:
      verbosity: of absl, from --verbosity, for the log records of this project. Libraries log
        warnings only, because Orbax logs every file that it writes, and less if `verbosity` says
        so; at debug (1) they log everything. None logs our own records from info on.
    """
    ours = absl_logging.INFO if verbosity is None else verbosity
    theirs = ours if ours == absl_logging.DEBUG else min(ours, absl_logging.WARNING)
    absl_logging.set_verbosity(theirs)
    logging.getLogger("rlp").setLevel(converter.absl_to_standard(ours))
    absl_logging.get_absl_logger().addFilter(_raised_as_well)
    absl_logging.get_absl_handler().addFilter(_made_printable)
    warnings.showwarning = _Warnings(warnings.showwarning)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Exit with status 2 and one line on stderr on a UserError, or on a disk error that was not
    converted to one before."""
    sys.excepthook, sys.unraisablehook = _show, _show_unraisable
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack characters
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:  # absl ends every program with it
            if sys.stdout is not None:
                sys.stdout.flush()
            raise
    except UserError as error:
        _refuse(error)
    except BrokenPipeError:
        if not _output_is_lost():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, RuntimeError, ValueError) as error:  # TensorStore raises all of these
        if (user_error := disk_errors.as_user_error(error)) is None:
            raise
        _refuse(user_error)


def _refuse(error: UserError) -> NoReturn:
    print(error_lines(error), file=sys.stderr)
    _output_is_lost()
    sys.exit(USER_ERROR)


def _output_is_lost() -> bool:
    """Return whether stdout is closed, as after `| head -1`. If it is, redirect the rest to
    /dev/null, so that Python does not report an error at exit."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
        readers = select.poll()
        readers.register(sys.stdout.fileno(), 0)
        if not any(event & select.POLLERR for _, event in readers.poll(0)):
            return False
    except io.UnsupportedOperation:  # stdout is not a file
        return False
    except OSError:
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _made_printable(record: logging.LogRecord) -> bool:
    """Escape control characters in a log record, which may contain names of foreign files."""
    ours = record.name.partition(".")[0] == "rlp"
    record.msg, record.args = printable(record.getMessage(), "" if ours else "\n\t"), ()
    return True


def _raised_as_well(record: logging.LogRecord) -> bool:
    """Drop records in which Orbax logs, several times, the traceback of an error that it raises."""
    return not (record.exc_info and "orbax" in Path(record.pathname).parts)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error."""
    if not _is_of_failed_write(error):
        sys.__excepthook__(kind, error, trace)


def _show_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """Print an error that cannot be raised where it occurred."""
    if not _is_of_failed_write(raised.exc_value):
        sys.__unraisablehook__(raised)


def _is_of_failed_write(error: BaseException | None) -> bool:
    """Return whether the error is from a thread of TensorStore that Orbax no longer waits for,
    because a write has failed; the error of the write is raised as well."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


class _Warnings:
    """Print warnings, with one line about JAX's compilation cache instead of one per program."""

    def __init__(self, others: object) -> None:
        self._show_other, self._shown = others, False

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not (match := _CACHE.match(str(message))):
            self._show_other(message, category, filename, lineno, file, line)  # type: ignore[operator]
        elif not self._shown:
            self._shown = True
            done = {"writing": "written", "reading": "read"}[match[1]]
            reason = printable(" ".join(match[2].split()))
            folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", "its directory")
            print(
                f"warning: JAX's compilation cache in {printable(folder)} cannot be {done} "
                f"({reason}); programs are recompiled at every start",
                file=sys.stderr,
            )
