"""`python -m launch.train --multihost`: stopped, killed or moved, a run ends like one process."""

import json
import signal
import socket
import sys
import time

import numpy as np
import pytest

from rlp.training.checkpoint.load import load_items
from tests.support import hosts as cluster
from tests.support import runs

pytestmark = pytest.mark.slow

EXPERIMENT = """
from ml_collections import ConfigDict
from configs import default

def get_config():
    config = default.get_config()
    config.update_from_flattened_dict({fields!r})
    config.arms = ConfigDict({arms!r})
    return config
"""
ARMS = {"base": {}, "rlp": {"objective": "rlp", "init_from": "base"}}


def experiment(folder, arms, *changes):
    """Write the config file of an experiment."""
    text = EXPERIMENT.format(fields=runs.flat_config(*changes), arms=arms)
    (folder / "tiny.py").write_text(text)


def train(folder, name, *more):
    """Return the command of a run in `folder`/`name`."""
    config = [f"--config={folder}/tiny.py", f"--workdir={folder}/{name}"]
    return [sys.executable, "-m", "launch.train", *config, *more]


def several(folder, name, number, *more):
    return lambda address, i: [
        *train(folder, name, *more),
        *("--multihost", f"--coordinator_address={address}"),
        *(f"--num_processes={number}", f"--process_id={i}"),
    ]


def alone(folder, name, devices, *more):
    """Run it in one process to its end."""
    words = lambda address, i: train(folder, name, *more)
    with cluster.started(words, 1, folder / f"{name}-alone", devices) as (*process,):
        assert process[0].wait(600) == 0


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for_line(processes, workdir, count):
    end = time.monotonic() + 600
    while lines(workdir) < count:
        assert all(process.poll() is None for process in processes), processes.err(0)
        assert time.monotonic() < end
        time.sleep(0.01)


def same_figures(found, expected):
    """Equal up to the rounding of sums over other shards, which AdamW's quotients magnify; counts
    are equal. Only a mesh that shards the parameters gathers them."""
    found, expected = (
        {name: value for name, value in runs.timeless(figures).items() if name != "gather_bytes"}
        for figures in (found, expected)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None or isinstance(value, int):
            assert found[name] == value, name
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def same_run(workdir, expected):
    """Return the metrics of all steps and of the end, the thoughts, and the data position."""
    ours, theirs = runs.metrics(workdir), runs.metrics(expected)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        same_figures(one, other)
    read = lambda folder, name: json.loads((folder / name).read_text())
    same_figures(read(workdir, "evaluation.json"), read(expected, "evaluation.json"))
    pieces = lambda folder: [
        [thought["pieces"] for place in document["positions"] for thought in place["thoughts"]]
        for document in read(folder, "thoughts.json")["documents"]
    ]
    assert pieces(workdir) == pieces(expected)
    assert runs.steps(workdir) == runs.steps(expected)
    last = lambda folder: folder / "checkpoints" / str(runs.steps(folder)[-1])
    position = lambda folder: load_items(last(folder), {}, ("data",))["data"]
    assert position(workdir) == position(expected)


def test_stopped_on_two_hosts_killed_on_four_and_ended_on_one_it_is_the_run_of_one(tmp_path):
    experiment(tmp_path, ARMS, runs.COMPASS, {"steps": 8, "evaluation.every": 4})
    alone(tmp_path, "expected", 1)
    run = tmp_path / "run"

    # SIGTERM to process 1 only, during next-token training.
    words = several(tmp_path, "run", 2, "--config.mesh.fsdp=2")
    with cluster.started(words, 2, tmp_path / "stopped") as both:
        wait_for_line(both, run / "base", 2)
        both[1].send_signal(signal.SIGTERM)
        assert both.wait(600) == [0, 0]
        assert both.out(0).startswith("stopped by a signal to another process; the state is saved")
        assert both.out(1) == ""
        assert "step/s" in both.err(0)
        assert "step/s" not in both.err(1)
    saved = lines(run / "base")
    assert 2 <= saved < 8
    assert runs.steps(run / "base")[-1] == saved
    assert len(list((run / "base" / "tensorboard").iterdir())) == 1

    # Other hosts resume, past the end of the first arm into RLP; one of them dies.
    words = several(tmp_path, "run", 4, "--config.mesh.data=2", "--config.mesh.fsdp=2")
    with cluster.started(words, 4, tmp_path / "killed", devices=1) as four:
        wait_for_line(four, run / "rlp", 3)
        four[3].kill()
        statuses = four.wait(600)  # the others do not wait forever
        assert statuses == [1, 1, 1, -signal.SIGKILL]
        for i in range(3):
            last = four.err(i).splitlines()[-1]
            assert f"stops because process 3 on {socket.gethostname()} is gone" in last
            assert "Traceback" not in four.err(i)
            assert (run / "logs" / f"process-{i}.log").read_text().count("--- 20") == 1 + (i < 2)
    assert lines(run / "rlp") < 8

    # One process finishes the run, on a mesh with another axis.
    alone(tmp_path, "run", 2, "--config.mesh.tensor=2")
    for arm in ARMS:
        same_run(run / arm, tmp_path / "expected" / arm)


def test_a_model_of_hugging_face_comes_onto_two_hosts_as_onto_one(tmp_path):
    words = lambda address, i: [sys.executable, "-m", "launch.tiny_hf", f"--out={tmp_path}/tiny"]
    with cluster.started(words, 1, tmp_path / "made") as (process,):
        assert process.wait(600) == 0
    arms = {"run": {"init_from": f"{tmp_path}/tiny"}}
    changes = runs.TEXT | {"steps": 2, "checkpoint.every": 1, "data.sequence_length": 32}
    experiment(tmp_path, arms, changes, runs.text_file(tmp_path))
    alone(tmp_path, "expected", 1)
    words = several(tmp_path, "run", 2, "--config.mesh.fsdp=2", "--config.mesh.tensor=2")
    with cluster.started(words, 2, tmp_path / "two") as both:
        assert both.wait(600) == [0, 0], both.err(0)
    same_run(tmp_path / "run" / "run", tmp_path / "expected" / "run")
    files = lambda name: sorted(p.name for p in (tmp_path / name / "run" / "hf").iterdir())
    assert files("run") == files("expected")


def test_two_hosts_refuse_other_data_together(tmp_path):
    """Process 0 compares the data with the checkpoint; both exit with the same status."""
    changes = runs.TEXT | {"steps": 500, "checkpoint.every": 1, "evaluation.every": 0}
    data = runs.text_file(tmp_path)
    experiment(tmp_path, {"run": {}}, changes, data)
    words = several(tmp_path, "run", 2)
    with cluster.started(words, 2, tmp_path / "stopped", devices=1) as both:
        wait_for_line(both, tmp_path / "run" / "run", 2)
        both[0].send_signal(signal.SIGTERM)
        assert both.wait(600) == [0, 0]
    with open(data["data.train"], "a") as file:
        file.write('{"text": "one more"}\n')
    with cluster.started(words, 2, tmp_path / "refused", devices=1) as both:
        assert both.wait(600) == [2, 2]
        for process in (0, 1):
            error = both.err(process)
            assert "contains a run on different data (data.train: 12 documents, " in error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--config.arms.rlp.objective=rpt"], "config.arms.rlp.objective is 'rlp' on process 0 on"),
        (["--allow_config_change"], "--allow_config_change is False on process 0 on "),
    ],
)
def test_hosts_that_were_started_with_another_config_are_refused(tmp_path, changes, told):
    experiment(tmp_path, ARMS, runs.COMPASS)

    def words(address, i):
        return several(tmp_path, "run", 2, *(changes if i == 1 else []))(address, i)

    with cluster.started(words, 2, tmp_path / "two", devices=1) as both:
        assert both.wait(120) == [2, 2]
    for i in range(2):
        assert both.err(i).startswith("error: the processes of this run differ: " + told)
        assert both.err(i).count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_hosts_with_other_data_are_refused_before_anything_is_trained(tmp_path):
    """The same path is a different file on each host."""
    experiment(tmp_path, {"run": {}}, runs.TEXT, {"data.train": "text.jsonl"})
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        runs.text_file(tmp_path / str(i))
    with (tmp_path / "1" / "text.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    move = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.executable, sys.argv[2:])"

    def words(address, i):
        command = several(tmp_path, "run", 2)(address, i)
        return [sys.executable, "-c", move, str(tmp_path / str(i)), *command]

    with cluster.started(words, 2, tmp_path / "two", devices=1) as both:
        assert both.wait(300) == [2, 2]
    for i in range(2):
        line = both.err(i).splitlines()[-1]
        assert "process 1 on" in line
        assert "has different data than process 0 on" in line
        assert "data.train: 12 documents" in line
        assert "text.jsonl" in line
    assert not (tmp_path / "run" / "run" / "checkpoints").exists()
