"""A signal ends a program at once and with one line, whatever its main thread is doing."""

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
    # A call that neither returns nor runs Python code, as compilations and tokenizers do.
    "is in compiled code": "import hashlib; print('up', flush=True);"
    "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "computes in Python": "print('up', flush=True)\nwhile True: pass",
}


def ended(code, number, times=1, before=""):
    """What became of a program that got a signal: its status, stderr, and how long it took."""
    words = [sys.executable, "-c", START + before + code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == "up\n"
        start = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.2 if times > 1 else 0)
        said = process.stdout.read() + process.stderr.read()
        return process.wait(30), said, time.monotonic() - start


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("busy", BUSY)
def test_each_signal_ends_the_program_with_one_line(number, busy):
    status, said, seconds = ended(BUSY[busy], number)
    assert status == -number  # by the signal itself, so that a shell's loop ends with Ctrl-C
    assert said.split("\n") == ["", f"stopped by {number.name}", ""]
    assert seconds < 20


def test_what_has_to_be_done_before_the_end_is_done_once_and_in_reverse():
    before = (
        "import os; say = lambda text: os.write(1, text);"
        "signals.before_end(lambda: say(b'first '));"
        "undo = signals.before_end(lambda: say(b'undone ')); undo();"
        "signals.before_end(lambda: 1 / 0); signals.before_end(lambda: say(b'last '));"
    )
    status, said, _ = ended(BUSY["sleeps"], signal.SIGTERM, before=before)
    assert status == -signal.SIGTERM
    assert said.startswith("last first ")
    assert "ZeroDivisionError" in said


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
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as process:
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
    status, said, _ = ended(SAVING.replace("WORK", "time.sleep(0.1)"), signal.SIGINT)
    assert status == -signal.SIGINT
    assert said.startswith("saved\n")
    assert "press it again to stop at once" in said


def test_a_second_ctrl_c_ends_at_once_what_does_not_get_to_saving():
    work = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)"
    status, said, seconds = ended(SAVING.replace("WORK", work), signal.SIGINT, 2)
    assert status == -signal.SIGINT
    assert "saved" not in said
    assert seconds < 20
