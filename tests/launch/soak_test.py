"""A few kills of the soak test, which can be run for as many as one likes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_runs_that_are_disturbed_at_random_end_like_undisturbed_ones(tmp_path):
    words = ["--kills=5", "--kind=text", "--kind=rlvr", f"--folder={tmp_path / 'soak'}"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words],
        cwd=ROOT, timeout=800, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "5 disturbances" in ran.stdout
