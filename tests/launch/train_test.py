"""`python -m launch.train` from outside: killed, asked to stop, and given what it cannot use."""

import contextlib
import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import runs
from tests.support.environment import of_a_user
from tests.support.paths import ROOT

# Alone in its process, as a user's run is; that is also what makes two runs equal bit for bit.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
RLP = runs.COMPASS | {"objective": "rlp"}


def command(workdir, *changes, more=()):
    """The command line of a tiny run."""
    fields = runs.flat_config(*changes)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"--config={ROOT}/configs/default.py"
    return [sys.executable, "-m", "launch.train", config, f"--workdir={workdir}", *flags, *more]


@contextlib.contextmanager
def started(words, folder, environment=ENVIRONMENT):
    """A started program, with its output in files; killed at the end if it still runs."""
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=err)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finish(words, folder, seconds=120, environment=ENVIRONMENT):
    """Runs a program to its end: (exit status, stdout, stderr)."""
    with started(words, folder, environment) as process:
        process.wait(seconds)
    return process.returncode, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def wait_for(process, seen, what):
    """Waits until `seen()` is true; the program must not end before."""
    end = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < end, f"never saw {what}"
        time.sleep(0.001)


def above(count, read):
    """Something to wait for: that `read()` exceeds `count`."""
    return lambda: read() > count


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def saving(workdir):
    """Whether a checkpoint is being written."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def test_killed_twice_and_stopped_once_it_ends_like_an_undisturbed_run(tmp_path):
    many = {"steps": 12, "evaluation.every": 0}  # but at the end
    (tmp_path / "a").mkdir()
    undisturbed = command(tmp_path / "whole", RLP, many)
    with started(undisturbed, tmp_path / "a") as other:
        workdir, words = tmp_path / "run", command(tmp_path / "run", RLP, many)
        with started(words, tmp_path) as process:
            wait_for(process, lambda: lines(workdir) >= 3, "three steps")
            process.kill()
        assert lines(workdir) < 12
        with started(words, tmp_path) as process:
            wait_for(process, lambda: saving(workdir), "a checkpoint being written")
            process.kill()
        before = lines(workdir)  # some of which the next start takes back
        with started(words, tmp_path) as process:
            wait_for(process, above(before, lambda: lines(workdir)), "another step")
            process.terminate()
            assert process.wait(60) == 0
        assert "stopped by SIGTERM; the state is saved" in (tmp_path / "stdout").read_text()
        assert runs.steps(workdir)[-1] == lines(workdir) < 12
        status, shown, _ = finish(words, tmp_path)
        assert status == 0
        assert "report: " in shown
        assert other.wait(120) == 0
    assert runs.outcome(workdir) == runs.outcome(tmp_path / "whole")
    assert lines(workdir) == 12
    status, _, said = finish(words, tmp_path)
    assert (status, "is finished; nothing to do" in said) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [runs.TEXT, runs.TEXT_RLP], ids=["text", "both"])
def test_killed_at_random_moments_it_ends_like_an_undisturbed_run(changes, tmp_path):
    """With code that is optimized, as a user's is."""
    as_user = {"environment": ENVIRONMENT | of_a_user(), "folder": tmp_path}
    many = {"steps": 12, "evaluation.every": 5} | runs.text_file(tmp_path)
    assert finish(command(tmp_path / "whole", changes, many), **as_user)[0] == 0
    chosen = random.Random(6)
    workdir, words = tmp_path / "run", command(tmp_path / "run", changes, many)
    starts = lambda: len(list((workdir / "tensorboard").glob("*")))
    for _ in range(3):
        saved = max(runs.steps(workdir), default=0) if workdir.exists() else 0
        new_start = above(starts(), starts)
        far_enough = above(min(saved + chosen.randint(-1, 2), 11), lambda: lines(workdir))
        with started(words, **as_user) as process:
            # The file of a new start is there when lines behind the checkpoint have been cut.
            wait_for(process, new_start, "its steps begin")
            wait_for(process, far_enough, "some steps")
            time.sleep(chosen.uniform(0, 0.3))
            process.kill()
    assert finish(words, **as_user)[0] == 0
    assert runs.outcome(workdir) == runs.outcome(tmp_path / "whole")


@pytest.mark.slow
def test_an_experiment_killed_at_random_moments_ends_like_an_undisturbed_one(tmp_path):
    (tmp_path / "tiny.py").write_text(
        f"""
from ml_collections import ConfigDict
from configs import default

def get_config():
    config = default.get_config()
    config.update_from_flattened_dict({runs.flat_config(runs.COMPASS)!r})
    config.arms = ConfigDict({{
        "base": {{}},
        "rlp": {{"objective": "rlp", "init_from": "base"}},
        "cpt": {{"init_from": "base", "match": "rlp:flops"}},
    }})
    return config
"""
    )
    words = lambda folder: [
        *(sys.executable, "-m", "launch.train", "--config=tiny.py", f"--workdir={folder}/run")
    ]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert finish(words("whole"), tmp_path)[0] == 0
    chosen = random.Random(3)
    for arm, step in (("base", 2), ("rlp", 5), ("cpt", 1)):
        with started(words("killed"), tmp_path) as process:
            reached = above(step - 1, functools.partial(lines, tmp_path / "killed" / "run" / arm))
            wait_for(process, reached, f"step {step} of {arm}")
            time.sleep(chosen.uniform(0, 0.3))
            process.kill()
    assert finish(words("killed"), tmp_path)[0] == 0
    for arm in ("base", "rlp", "cpt"):
        found, expected = (
            runs.outcome(tmp_path / name / "run" / arm) for name in ("killed", "whole")
        )
        del found["config"], expected["config"]  # they name the folder
        assert found == expected


# Bad input. Cases share one process, which forks before jax has started: each is a real command
# line with its own exit status, without seconds of imports.

FORK = """
import json, os, sys
from launch import program, train
from rlp.run import experiment, loop

for words, out, err in json.loads(sys.stdin.read()):
    child = os.fork()
    if child == 0:
        sys.argv = words
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        program.run(train.main)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_all(command_lines, folder):
    """(exit status, stdout, stderr) of each command line, in order."""
    count = len(list(folder.glob("*.out")))
    work = [(words[2:], f"{i}.out", f"{i}.err") for i, words in enumerate(command_lines, count)]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        input=json.dumps(work), cwd=folder, env=ENVIRONMENT, timeout=200, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    read = lambda name: (folder / name).read_text()
    statuses = map(int, ran.stdout.split())
    return [(s, read(out), read(err)) for s, (_, out, err) in zip(statuses, work, strict=True)]


TEXT = {"data.train": "text.jsonl"}
OTHER_SHAPE = {"init_from": "base", "model.hidden_size": 48}
BAD = {
    "objective": ({"objective": "rlpt"}, "objective='rlpt' is unknown; use one of next_token, rlp"),
    "group": (
        {"objective": "rlp", "rlp.group_size": 1, "rlp.baseline": "none"},
        "rlp.group_size=1 has no group to compare with",
    ),
    "mesh": ({"mesh.data": 3}, "mesh.data=3, mesh.fsdp=1, mesh.tensor=1 does not make 1 devices"),
    "no data": ({"data.train": ""}, "data.train is empty; give text files"),
    "missing data": ({"data.train": "gone.jsonl"}, "data.train: no file or folder gone.jsonl"),
    "start": ({"init_from": "gone"}, "no such folder: gone"),
    "start's step": ({"init_from": "base@77"}, "base has no checkpoint of step 77; it has 1"),
    "start's shape": (OTHER_SHAPE, "model.hidden_size=48, but base has 32; leave it out"),
    "prompt": ({"rlp.prompt": "gone.txt"}, "rlp.prompt='gone.txt' is no file"),
    "match": ({"match": "base"}, "match='base' is not '<workdir>:flops'"),
    "match's run": ({"match": "gone:flops"}, "match='gone:flops': gone is not a finished run"),
}
HOST = "--coordinator_address=10.0.0.1:1234"
BAD_HOSTS = {
    "no multihost": ([HOST], "--coordinator_address needs --multihost"),
    "no process": (
        ["--multihost", HOST, "--num_processes=2"],
        "--coordinator_address and --num_processes without --process_id; give all three",
    ),
    "no port": (
        ["--multihost", "--coordinator_address=10.0.0.1", "--num_processes=2", "--process_id=0"],
        "--coordinator_address=10.0.0.1 is not HOST:PORT of process 0",
    ),
    "process": (
        ["--multihost", HOST, "--num_processes=2", "--process_id=2"],
        "--process_id=2; with --num_processes=2 it must lie in [0, 1]",
    ),
    "no cluster": (
        ["--multihost"],
        "does not say who the others are as Cloud TPU, SLURM, GKE or Open MPI do; give",
    ),
}
NAN = {"optimizer.learning_rate": 1e38, "max_bad_steps": 2, "checkpoint.every": 1}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder with a run in base/ and an attempt for each case: name to status and texts."""
    folder = tmp_path_factory.mktemp("bad")
    runs.text_file(folder)
    base = command("base", runs.TEXT, TEXT, {"steps": 1})
    (made,) = run_all([base], folder)
    assert made[0] == 0, made
    before = {path: path.read_bytes() for path in (folder / "base").rglob("*") if path.is_file()}
    attempts = {
        case: command(f"run {case}", runs.TEXT, TEXT, changes) for case, (changes, _) in BAD.items()
    }
    for case, (more, _) in BAD_HOSTS.items():
        attempts[case] = command(f"run {case}", runs.TEXT, TEXT, more=more)
    attempts["nan"] = command("run nan", runs.TEXT, TEXT, NAN)
    attempts["another config"] = command("base", runs.TEXT, TEXT, {"steps": 2, "seed": 3})
    ran = dict(zip(attempts, run_all(attempts.values(), folder), strict=True))
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
    changes = re.escape("another config (seed: 0 -> 3; steps: 1 -> 2)")
    is_one_line(bad[1]["another config"], f"base holds a run of {changes}.*--allow_config_change")


def test_a_run_of_nan_ends_with_one_line_and_status_2(bad):
    status, _, said = bad[1]["nan"]
    assert status == 2
    assert "Traceback" not in said
    assert re.match(
        r"error: 2 updates in a row .* lower optimizer\.learning_rate", said.splitlines()[-1]
    )


def test_sigterm_before_anything_is_read_ends_at_once(tmp_path):
    """While it imports, the program has nothing to save: it dies of the signal."""
    with started(command(tmp_path / "run", RLP), tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert not (tmp_path / "run").exists()
