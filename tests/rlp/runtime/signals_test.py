"""A signal ends a program at once with one line, whatever the main thread is doing."""

import signal
import subprocess
import sys
import time

import pytest

from rlp.runtime.signals import ENDING
from tests.support.paths import ROOT

START = "from rlp.runtime import signals; signals.install(); "
BUSY = {
    "sleeps": "import time; print('up', flush=True); time.sleep(60)",
    # A long call that runs no Python code, like a compilation or a tokenizer.
    "is in compiled code": "import hashlib; print('up', flush=True);"
    "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "computes in Python": "print('up', flush=True)\nwhile True: pass",
}


def ended(code, number, times=1, before=""):
    """Send a signal to a program; return its exit status, its output, and the seconds it took."""
    command = [sys.executable, "-c", START + before + code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == "up\n"
        start = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.2 if times > 1 else 0)
        output = process.stdout.read() + process.stderr.read()
        return process.wait(30), output, time.monotonic() - start


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("busy", BUSY)
def test_each_signal_ends_the_program_with_one_line(number, busy):
    status, output, seconds = ended(BUSY[busy], number)
    assert status == -number  # by the signal itself, so that Ctrl-C also ends a loop of the shell
    assert output.split("\n") == ["", f"stopped by {number.name}", ""]
    assert seconds < 20


def test_callbacks_before_the_end_are_called_once_and_in_reverse():
    before = (
        "import os; write = lambda text: os.write(1, text);"
        "signals.before_end(lambda: write(b'first '));"
        "undo = signals.before_end(lambda: write(b'undone ')); undo();"
        "signals.before_end(lambda: 1 / 0); signals.before_end(lambda: write(b'last '));"
    )
    status, output, _ = ended(BUSY["sleeps"], signal.SIGTERM, before=before)
    assert status == -signal.SIGTERM
    assert output.startswith("last first ")
    assert "ZeroDivisionError" in output


def test_a_second_signal_ends_a_program_that_is_slow_to_end():
    before = "import time; signals.before_end(lambda: time.sleep(60));"
    status, _, seconds = ended(BUSY["computes in Python"], signal.SIGTERM, 2, before)
    assert status == -signal.SIGTERM
    assert seconds < 20


def test_a_signal_that_was_ignored_stays_ignored():
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        + START
        + "print('up', flush=True); import time; time.sleep(1)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 0


SAVING = """
from rlp.runtime.preemption import Preempted, Preemption
import time
with Preemption() as preemption:
    preemption.wait()
    try:
        for step in preemption.watch(range(600)):
            step or print('up', flush=True)
            WORK
    except Preempted as preempted:
        print('saved', flush=True)
        signals.die_at_exit(preempted.number)
"""


def test_ctrl_c_saves_and_then_ends_by_the_signal():
    status, output, _ = ended(SAVING.replace("WORK", "time.sleep(0.1)"), signal.SIGINT)
    assert status == -signal.SIGINT
    assert output.startswith("saved\n")
    assert "press it again to stop at once without saving" in output


def test_a_second_ctrl_c_ends_a_program_that_never_reaches_a_check():
    work = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)"
    status, output, seconds = ended(SAVING.replace("WORK", work), signal.SIGINT, 2)
    assert status == -signal.SIGINT
    assert "saved" not in output
    assert seconds < 20


CALLED = """
import os
with signals.first_calls(lambda number: os.write(1, b"called ")):
    print("up", flush=True)
    time.sleep(1)
print("went on", flush=True)
"""


def test_the_first_signal_may_call_a_function_instead():
    status, output, _ = ended(CALLED, signal.SIGTERM, before="import time\n")
    assert (status, output) == (0, "called went on\n")
    status, output, seconds = ended(
        CALLED.replace("(1)", "(60)"), signal.SIGINT, 2, "import time\n"
    )
    assert status == -signal.SIGINT
    assert output.startswith("called \nstopped by SIGINT")
    assert seconds < 20
