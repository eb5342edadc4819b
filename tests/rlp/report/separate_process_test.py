"""Reports written by a separate process."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlp import report
from rlp.report import separate_process
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT


def test_a_report_that_is_made_apart_is_the_same_without_jax(experiment: Path, tmp_path, caplog):
    (experiment / "rlp" / "thoughts.json").write_text("")
    report.write_report([experiment], tmp_path / "here" / "report.html")
    caplog.clear()
    report.write_report_separately([experiment], tmp_path / "there" / "report.html")
    (message,) = caplog.messages
    assert "no thoughts of this run are shown" in message
    written = lambda name: {
        path.relative_to(tmp_path / name): path.read_bytes()
        for path in (tmp_path / name).rglob("*")
        if path.is_file()
    }
    assert written("here") == written("there")
    code = "import sys, rlp.report, rlp.report.plots, rlp.report.page; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "False\n"


def test_what_goes_wrong_apart_is_one_line(experiment: Path, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="report.html exists already and is not what would be"):
        report.write_report_separately([experiment], out)
    assert out.read_text() == "mine"
    out.unlink()
    for code, reason in {
        "import os; os.kill(os.getpid(), 9)": "its process was killed by SIGKILL",
        "raise MemoryError('all of it')": "MemoryError: all of it",
        "raise SystemExit(3)": "exit status 3",
    }.items():
        (tmp_path / "rlp" / "report").mkdir(parents=True, exist_ok=True)
        (tmp_path / "rlp" / "report" / "__main__.py").write_text(code)
        monkeypatch.setattr(separate_process, "ROOT", tmp_path)
        with pytest.raises(UserError) as caught:
            report.write_report_separately([experiment], out)
        assert f"{out} could not be written: {reason}; the run itself is saved" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_process_ends_when_nobody_waits_for_it(experiment: Path, tmp_path):
    words = [sys.executable, "-m", "rlp.report", str(tmp_path / "report.html"), str(experiment)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(60) == 1
    assert not (tmp_path / "report.html").exists()
