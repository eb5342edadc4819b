"""What programs print: any text to any stream, and errors as one line."""

import errno
import logging
import os
import subprocess
import sys
import warnings

import pytest

from launch import output
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

PROGRAM = """
import logging, sys
from launch import program
from rlp.runtime.errors import UserError
def main(arguments):
    {body}
if __name__ == "__main__":
    program.run(main, most_arguments=None)
"""


def run(tmp_path, body, end="", **environment):
    """Exit status, standard output and standard error of a program, in a shell."""
    (tmp_path / "some.py").write_text(PROGRAM.format(body=body))
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} some.py {end}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


WROTE = 'print("\\u00e9 \\ud800 \\u4e2d")'
NARROW = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "\\xe9 \\ud800 \\u4e2d\n"),
    "strict": ({"PYTHONIOENCODING": "utf-8:strict"}, "\u00e9 \\ud800 \u4e2d\n"),
}


@pytest.mark.parametrize("name", NARROW)
def test_every_text_can_be_printed_whatever_the_encoding(tmp_path, name):
    environment, expected = NARROW[name]
    assert run(tmp_path, WROTE, **environment) == (0, expected, "")


def test_an_error_is_one_line_that_no_terminal_obeys(tmp_path):
    body = 'raise UserError("no \\x1b]0;x\\x07 \\u202e \\ud800 \\n file")'
    assert run(tmp_path, body, PYTHONIOENCODING="ascii") == (
        *(2, ""),
        "error: no \\x1b]0;x\\x07 \\u202e \\ud800 file\n",
    )


def test_a_reader_that_has_enough_ends_the_program_without_a_word(tmp_path):
    body = 'print("a\\n" * 1_000_000)'
    status, shown, said = run(tmp_path, body, end="| head -1; exit ${PIPESTATUS[0]}")
    assert (status, shown, said) == (141, "a\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_an_output_that_is_full_is_one_line(tmp_path):
    status, _, said = run(tmp_path, 'print("a")', end="> /dev/full")
    assert status == 2
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


LOGS = (
    'import os; from rlp.runtime.process_log import ProcessLog; log = ProcessLog(0, "x"); '
    "[getattr(logging.getLogger(name), level)(level + name[:1]) for name in ('rlp.x', 'jax.x') "
    "for level in ('debug', 'info', 'warning', 'error')]; "
    "print(log.path.read_text()); log.close()"
)
OURS, THEIRS = ["debugr", "infor", "warningr", "errorr"], ["debugj", "infoj", "warningj", "errorj"]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("", [*OURS[1:], *THEIRS[2:]]),
        ("--verbosity=0", [*OURS[1:], *THEIRS[2:]]),
        ("--verbosity=warning", [*OURS[2:], *THEIRS[2:]]),
        ("--verbosity=error", [*OURS[3:], *THEIRS[3:]]),
        ("-v=1", OURS + THEIRS),
        ("--verbosity=debug", OURS + THEIRS),
    ],
)
def test_verbosity_holds_in_the_terminal_and_in_the_log_file(tmp_path, flag, expected):
    status, log, terminal = run(tmp_path, LOGS, end=flag)
    assert status == 0, terminal
    logged = lambda text: [word for word in text.split() if word in OURS + THEIRS]
    assert logged(terminal) == expected
    assert logged(log) == expected


def test_a_verbosity_that_is_not_a_level_is_refused(tmp_path):
    status, _, errors = run(tmp_path, "pass", end="--verbosity=loud")
    assert status == 2
    assert errors.startswith("error: flag --verbosity=loud: use one of fatal, error, warning, info")


# In this process.


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "", "here"),
        PermissionError(errno.EACCES, "", "here"),
        OSError(errno.ENAMETOOLONG, "", "here"),
        FileNotFoundError(2, "No usable temporary directory found in ['/here']"),
        RuntimeError("INTERNAL: writing here [os_error_code='28']"),
        UserError("here"),
    ],
)
def test_errors_of_the_disk_end_a_program_with_one_line(error, capsys):
    with pytest.raises(SystemExit) as ended, output.ending():
        raise error
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "", "x"), RuntimeError("x"), BrokenPipeError(errno.EPIPE, "")]
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)), output.ending():
        raise error


def test_a_line_of_a_log_is_one_line_that_no_terminal_obeys():
    record = logging.LogRecord("rlp.x", 20, "x.py", 1, "a %s", ("\x1b[2J\nerror: b",), None)
    assert output._made_printable(record)
    assert record.getMessage() == "a \\x1b[2J\\x0aerror: b"


def test_a_compilation_cache_that_cannot_be_written_is_one_line(capsys):
    told = []
    show = output._Warnings(lambda *rest: told.append(rest[0]))
    for program in ("jit_a", "jit_b"):
        text = f"Error writing persistent compilation cache entry for '{program}': OSError: full"
        show(UserWarning(text), UserWarning, "x.py", 1)
    show(UserWarning("other"), UserWarning, "x.py", 1)
    assert list(map(str, told)) == ["other"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (OSError: full)" in line
    assert warnings.showwarning is not show
