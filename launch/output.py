"""What programs print: streams of any encoding, logs, and errors as one line each.

`prepare` sets up the streams and the logs; `ending` is entered around a whole program.
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
    logging.getLogger("rlp").setLevel(absl_logging.converter.absl_to_standard(ours))
    absl_logging.get_absl_logger().addFilter(_raised_as_well)
    absl_logging.get_absl_handler().addFilter(_made_printable)
    warnings.showwarning = _Warnings(warnings.showwarning)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Ends the program with status 2, after one line on stderr, if a UserError was raised, or an
    error of the disk that nothing else has named."""
    sys.excepthook, sys.unraisablehook = _show, _show_unraisable
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack letters
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:  # as absl ends every program
            if sys.stdout is not None:
                sys.stdout.flush()
            raise
    except UserError as error:
        _refuse(error)
    except BrokenPipeError:
        if not _output_is_lost():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, RuntimeError, ValueError) as error:  # TensorStore's are of every class
        if (told := disk_errors.as_user_error(error)) is None:
            raise
        _refuse(told)


def _refuse(error: UserError) -> NoReturn:
    print(error_lines(error), file=sys.stderr)
    _output_is_lost()
    sys.exit(USER_ERROR)


def _output_is_lost() -> bool:
    """Whether standard output cannot be written any more, as after `| head -1`; what is left of it
    goes nowhere then, so that Python does not complain of it at its end."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
        readers = select.poll()
        readers.register(sys.stdout.fileno(), 0)
        if not any(event & select.POLLERR for _, event in readers.poll(0)):
            return False
    except io.UnsupportedOperation:  # it is no file
        return False
    except OSError:
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _made_printable(record: logging.LogRecord) -> bool:
    """Escapes what a terminal would obey in a line of a log, which may name files of others."""
    ours = record.name.partition(".")[0] == "rlp"
    record.msg, record.args = printable(record.getMessage(), "" if ours else "\n\t"), ()
    return True


def _raised_as_well(record: logging.LogRecord) -> bool:
    """Refuses the stack traces with which Orbax logs, several times, an error that it raises."""
    return not (record.exc_info and "orbax" in Path(record.pathname).parts)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nothing has caught."""
    if not _is_of_failed_write(error):
        sys.__excepthook__(kind, error, trace)


def _show_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    """Shows an error that cannot be raised where it happened."""
    if not _is_of_failed_write(raised.exc_value):
        sys.__unraisablehook__(raised)


def _is_of_failed_write(error: BaseException | None) -> bool:
    """Whether this is what TensorStore's threads say when Orbax does not wait for them any more,
    because a write has failed; that error is raised as well."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


class _Warnings:
    """Shows warnings, of JAX's cache of compiled programs one line in place of one a program."""

    def __init__(self, others: object) -> None:
        self._others, self._told = others, False

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not (found := _CACHE.match(str(message))):
            self._others(message, category, filename, lineno, file, line)  # type: ignore[operator]
        elif not self._told:
            self._told = True
            done = {"writing": "written", "reading": "read"}[found[1]]
            reason = printable(" ".join(found[2].split()))
            folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", "its folder")
            print(
                f"warning: JAX's compilation cache in {printable(folder)} cannot be {done} "
                f"({reason}): programs are compiled again at every start",
                file=sys.stderr,
            )
