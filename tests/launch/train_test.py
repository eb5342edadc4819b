"""`python -m launch.train` as a process: killed, stopped, and with bad input."""

import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import runs
from tests.support.paths import ROOT

RLP = runs.COMPASS | {"objective": "rlp"}


def command(workdir, *changes, more=()):
    """Return the command of a tiny run."""
    fields = runs.flat_config(*changes)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return [
        "launch.train",
        f"--config={ROOT}/configs/default.py",
        f"--workdir={workdir}",
        *flags,
        *more,
    ]


def wait_for(program, seen, what):
    """Wait until `seen()` is true; the program must not end before that."""
    end = time.monotonic() + 120
    while not seen():
        assert program.poll() is None, f"it ended before {what}"
        assert time.monotonic() < end, f"never saw {what}"
        time.sleep(0.001)


def above(count, read):
    """Return a condition for `wait_for`: `read()` exceeds `count`."""
    return lambda: read() > count


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def saving(workdir):
    """Return whether a checkpoint is being written."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def test_killed_and_stopped_it_ends_like_an_undisturbed_run(programs, tmp_path):
    many = {"steps": 12, "evaluation.every": 0}  # except at the end
    workdir, words = tmp_path / "run", command(tmp_path / "run", RLP, many)
    with programs.started(command(tmp_path / "whole", RLP, many), tmp_path) as other:
        with programs.started(words, tmp_path) as program:
            wait_for(program, lambda: lines(workdir) >= 3 and saving(workdir), "a checkpoint")
        before = lines(workdir)  # the next start drops some of them
        assert before < 12
        with programs.started(words, tmp_path) as program:
            wait_for(program, above(before, lambda: lines(workdir)), "another step")
            program.send(signal.SIGTERM)
            stopped = program.wait(60)
        assert stopped.status == 0
        assert "stopped by SIGTERM; the state is saved" in stopped.out
        assert runs.steps(workdir)[-1] == lines(workdir) < 12
        ended = programs.run(words, tmp_path)
        assert ended.status == 0
        assert "report: " in ended.out
        assert other.wait().status == 0
    assert runs.outcome(workdir) == runs.outcome(tmp_path / "whole")
    assert lines(workdir) == 12


# Bad input.

TEXT = {"data.train": "text.jsonl"}
OTHER_SHAPE = {"init_from": "base", "model.hidden_size": 48}
BAD = {
    "objective": ({"objective": "rlpt"}, "objective='rlpt' is unknown; use one of next_token, rlp"),
    "group": (
        {"objective": "rlp", "rlp.group_size": 1, "rlp.baseline": "none"},
        "rlp.group_size=1 leaves no other",
    ),
    "mesh": ({"mesh.data": 3}, "mesh.data=3, mesh.fsdp=1, mesh.tensor=1 does not make 1 devices"),
    "no data": ({"data.train": ""}, "data.train is empty; set --config.data.train"),
    "missing data": (
        {"data.train": "gone.jsonl"},
        "data.train: file or folder not found: gone.jsonl",
    ),
    "start": ({"init_from": "gone"}, "no such folder: gone"),
    "start's step": ({"init_from": "base@77"}, "base has no checkpoint of step 77; name one of 1"),
    "start's shape": (OTHER_SHAPE, "model.hidden_size=48, but base has 32; leave it out"),
    "prompt": ({"rlp.prompt": "gone.txt"}, "rlp.prompt='gone.txt' is not a file"),
    "match": ({"match": "base"}, "match='base' is not '<workdir>:flops'"),
    "match's run": ({"match": "gone:flops"}, "match='gone:flops': gone is not a finished run"),
}
HOST = "--coordinator_address=10.0.0.1:1234"
BAD_HOSTS = {
    "no multihost": ([HOST], "--coordinator_address needs --multihost"),
    "no process": (
        ["--multihost", HOST, "--num_processes=2"],
        "--coordinator_address and --num_processes without --process_id; set all three",
    ),
    "no port": (
        ["--multihost", "--coordinator_address=10.0.0.1", "--num_processes=2", "--process_id=0"],
        "--coordinator_address=10.0.0.1 is not HOST:PORT of process 0",
    ),
    "process": (
        ["--multihost", HOST, "--num_processes=2", "--process_id=2"],
        "--process_id=2; with --num_processes=2 it must be in [0, 1]",
    ),
    "no cluster": (
        ["--multihost"],
        "does not describe the processes of the run as Cloud TPU, SLURM, GKE or Open MPI do; give",
    ),
}
NAN = {"optimizer.learning_rate": 1e38, "max_bad_steps": 2, "checkpoint.every": 1}


@pytest.fixture(scope="module")
def bad(programs, tmp_path_factory):
    """A folder with a run in base/ and an attempt for each case: name to status and texts."""
    folder = tmp_path_factory.mktemp("bad")
    runs.text_file(folder)
    made = programs.run(command("base", runs.TEXT, TEXT, {"steps": 1}), folder)
    assert made.status == 0, made
    before = {path: path.read_bytes() for path in (folder / "base").rglob("*") if path.is_file()}
    attempts = {
        case: command(f"run {case}", runs.TEXT, TEXT, changes) for case, (changes, _) in BAD.items()
    }
    for case, (more, _) in BAD_HOSTS.items():
        attempts[case] = command(f"run {case}", runs.TEXT, TEXT, more=more)
    attempts["nan"] = command("run nan", runs.TEXT, TEXT, NAN)
    attempts["another config"] = command("base", runs.TEXT, TEXT, {"steps": 2, "seed": 3})
    ran = {case: programs.run(words, folder) for case, words in attempts.items()}
    after = {path: path.read_bytes() for path in (folder / "base").rglob("*") if path.is_file()}
    assert after == before
    return folder, ran


def is_one_line(result, message):
    status, shown, said = result
    assert status == 2
    assert shown == ""
    (line,) = said.splitlines()
    assert re.match("error: .*" + message, line)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_status_2_and_no_folder(case, bad):
    folder, ran = bad
    is_one_line(ran[case], BAD[case][1] if case == "start's shape" else re.escape(BAD[case][1]))
    assert not (folder / f"run {case}").exists()


@pytest.mark.parametrize("case", BAD_HOSTS)
def test_bad_flags_of_several_hosts_get_one_line_and_status_2(case, bad):
    folder, ran = bad
    is_one_line(ran[case], ".*" + re.escape(BAD_HOSTS[case][1]))
    assert not (folder / f"run {case}").exists()


def test_another_config_gets_one_line_and_status_2(bad):
    changes = re.escape("a different config (seed: 0 -> 3; steps: 1 -> 2)")
    message = f"base contains a run with {changes}.*--allow_config_change"
    is_one_line(bad[1]["another config"], message)


def test_a_run_of_nan_ends_with_one_line_and_status_2(bad):
    status, _, said = bad[1]["nan"]
    assert status == 2
    assert "Traceback" not in said
    assert re.match(
        r"error: 2 updates in a row .* lower optimizer\.learning_rate", said.splitlines()[-1]
    )


def test_sigterm_before_anything_is_read_ends_at_once(tmp_path):
    """During its imports the program has nothing to save, so the signal ends it."""
    words = [sys.executable, "-m", *command(tmp_path / "run", RLP)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert not (tmp_path / "run").exists()
