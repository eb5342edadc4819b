"""Output of libraries goes to the log of a process, and the terminal stays readable."""

import signal
import subprocess
import sys
import time

from rlp.runtime import run_folder
from tests.support.hosts import ROOT

BEGIN = """
import ctypes, logging, os, sys, threading
from pathlib import Path
from rlp.runtime.process_log import ProcessLog
logging.basicConfig(level="INFO", format="%(message)s")
log = ProcessLog(3, "process 3 of 4")
workdir = Path(sys.argv[1])
"""


def run(code, workdir, seconds=60):
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code, workdir],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def log_of(workdir):
    return (workdir / "logs" / "process-3.log").read_text()


def test_libraries_write_to_the_log_and_python_to_the_terminal(tmp_path):
    code = """
os.write(2, b"E1129 a library\\n")
print("a line of Python", file=sys.stderr)
logging.info("a record")
log.keep(workdir)
os.write(2, b"E1129 later\\n")
log.show("error: one line")
log.close()
os.write(2, b"after it\\n")
logging.info("a last record")
"""
    ran = run(code, tmp_path)
    shown = ["a line of Python", "a record", "error: one line", "after it", "a last record"]
    assert (ran.returncode, ran.stderr.splitlines()) == (0, shown)
    header, *lines = log_of(tmp_path).splitlines()
    assert header.startswith("--- 20")
    assert header.endswith(" process 3 of 4")
    assert [line for line in lines if "a record" not in line] == [
        "E1129 a library",
        "E1129 later",
        "error: one line",
    ]
    assert any("a record" in line for line in lines)


def test_a_log_is_appended_to(tmp_path):
    code = "log.keep(workdir); log.write('a line'); log.close()"
    for _ in range(2):
        assert run(code, tmp_path).returncode == 0
    assert log_of(tmp_path).count("--- ") == log_of(tmp_path).count("a line") == 2


def test_without_a_workdir_nothing_is_left_but_what_failed(tmp_path):
    code = """
log.write("traceback")
print(log.path)
if workdir.name == "closed":
    log.close()
"""
    for name, exists in (("closed", False), ("failed", True)):
        path = type(tmp_path)(run(code, tmp_path / name).stdout.strip())
        assert path.exists() == exists
        if exists:
            assert "traceback" in path.read_text()
            path.unlink()


def test_a_thread_that_fails_writes_its_traceback_to_the_log(tmp_path):
    code = """
log.keep(workdir)
log.quiet(logging.CRITICAL)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""
    assert run(code, tmp_path).stderr == ""
    assert "ZeroDivisionError" in log_of(tmp_path)


def test_an_abort_leaves_the_stacks_and_waits_for_a_line(tmp_path):
    """After an abort, as by JAX's client, another thread has time to print a line and exit."""
    code = """
log.keep(workdir)
def end():
    {wait}
    log.show("error: somebody is gone")
    os._exit(1)
threading.Thread(target=end, daemon=True).start()
ctypes.CDLL(None).abort()
"""
    ran = run(code.format(wait="import time; time.sleep(1)"), tmp_path)
    assert (ran.returncode, ran.stderr) == (1, "error: somebody is gone\n")
    assert "Fatal Python error: Aborted" in log_of(tmp_path)
    start = time.monotonic()
    ran = run(code.format(wait="threading.Event().wait()"), tmp_path)
    assert (ran.returncode, ran.stderr) == (-signal.SIGABRT, "")
    assert time.monotonic() - start > 5


def test_a_run_and_an_experiment_own_their_logs():
    for kind in ("run", "experiment", "sweep"):
        assert "logs" in run_folder.WRITTEN[kind]
