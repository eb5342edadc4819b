"""`python -m launch.sweep` as a process, with runs that train."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import runs
from tests.support.paths import ROOT

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "JAX_NUM_CPU_DEVICES": "1",
    "COLUMNS": "110",  # of the table
}
CONFIG = f"""
from configs import default
from configs.sweeps import chain, product

def get_config():
    config = default.get_config()
    config.update_from_flattened_dict({runs.flat_config(runs.COMPASS, {"objective": "rlp"})!r})
    return config

def sweep():
    base = {{"name": "base", "objective": "next_token"}}
    rlp = product({{"init_from": "base", "rlp.group_size": [4]}})
    broken = {{"name": "broken", "init_from": "nowhere"}}
    return chain(product({{"seed": [1, 2]}}, chain(base, rlp)), broken)
"""


def command(workdir, *more):
    return [sys.executable, "-m", "launch.sweep", "--config=some.py", f"--workdir={workdir}", *more]


def run(folder, *more):
    return subprocess.run(
        command("run", *more), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        check=False, timeout=500,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_and_compares_what_did_not_fail(tmp_path):
    (tmp_path / "some.py").write_text(CONFIG)
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen(
            command("run", "--max_parallel=2"),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=out,
            stderr=out,
        )
    metrics = tmp_path / "run" / "group_size=4,seed=1" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None, (tmp_path / "out").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(100) == 0
    assert "the same command resumes" in (tmp_path / "out").read_text()
    assert not (tmp_path / "run" / "report.html").exists()
    log = tmp_path / "run" / "logs" / "group_size=4,seed=1.log"
    assert "stopped by SIGTERM; the state is saved" in log.read_text()

    ran = run(tmp_path, "--max_parallel=2")
    assert ran.returncode == 1
    assert "resuming run/group_size=4,seed=1 at step" in log.read_text()
    last = ran.stderr.splitlines()[-1]
    assert last == "error: broken ended with 2; its log: run/logs/broken.log"
    heads = ran.stdout.splitlines()[0].split()
    assert heads == ["base", "group_size=4"]
    assert "1 of 5 points are missing" in ran.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    assert "group_size=4" in page
    for seed in (1, 2):
        name = f"group_size=4,seed={seed}"
        saved = json.loads((tmp_path / "run" / name / "config.json").read_text())
        assert (saved["rlp"]["group_size"], saved["seed"]) == (4, seed)
        assert saved["init_from"] == f"run/base,seed={seed}"

    lines = run(tmp_path, "--launcher=print").stdout.splitlines()
    assert len(lines) == 1
    assert "--workdir=run/broken" in lines[0]
    refused = run(tmp_path, "--config.steps=9")
    assert refused.returncode == 2
    assert "contains a run of another config (steps: 7 -> 9)" in refused.stderr
