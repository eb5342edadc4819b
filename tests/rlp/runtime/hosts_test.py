"""The processes of a run join, agree, read their share of the data, save and end together."""

import json
import re
import signal
import socket
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from models.sharding import make_mesh
from rlp.runtime import hosts, multihost
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from tests.support import hosts as cluster

JOIN = """
import json, os, sys, time
from pathlib import Path
from rlp.runtime import hosts, multihost
from rlp.runtime.errors import UserCodeError, UserError

def show(kind, error, trace):  # as launch.program does
    assert kind is UserError, error
    print("error:", error, file=sys.stderr, flush=True)
    os._exit(2)
sys.excepthook = show

address, number, process = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def report(**facts):
    print(json.dumps(facts), flush=True)
"""


def script(code, number, *more):
    """Return a function that makes the command line of a process, which runs JOIN and `code`."""
    return lambda address, i: [
        *(sys.executable, "-c", JOIN + code, address, str(number), str(i), *map(str, more))
    ]


def reported(processes, i):
    """Return all facts that process `i` has reported."""
    facts = [json.loads(line) for line in processes.out(i).splitlines()]
    return {name: value for line in facts for name, value in line.items()}


def test_alone_a_process_is_the_first_and_decides_for_itself():
    assert (hosts.count(), hosts.is_first()) == (1, True)
    hosts.barrier()
    value = object()
    assert hosts.agree(lambda: value) is value
    with pytest.raises(UserError, match="no such thing"):
        hosts.agree(refuse)


def refuse():
    raise UserError("no such thing")


TOGETHER = """
with multihost.Joined(address, number, process, 60):
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from models.sharding import batch_sharding, make_mesh
    from rlp.training.checkpoint import Checkpoints
    from rlp.data.batch import Batch
    from rlp.data.rows import Rows
    from rlp.runtime.preemption import Preempted, Preemption

    # Process 0 decides.
    decided = []
    def decide():
        decided.append(process)
        return {"from": process, "steps": [1, 2]}
    report(agreed=hosts.agree(decide), decided=decided, count=hosts.count(), first=hosts.is_first())
    def refuse():
        raise UserCodeError(f"refused by {process}", "the frames", field="objective")
    try:
        hosts.agree(refuse)
    except UserError as error:
        report(refused=str(error), field=error.field, frames=getattr(error, "frames", ""))

    # Each process reads its own rows, in two rollout batches.
    mesh = make_mesh(2, -1, 1)
    def read(first, size):
        reads.extend(range(first, first + size))
        x = np.repeat(np.arange(first, first + size, dtype=np.int32)[:, None], 3, axis=1)
        return Batch(tokens=x, segment=x, position=x, index=x[:, 0], forks=x)
    reads, rows = [], []
    collect = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
    for part in range(2):
        batch = Rows(16, read).placed(mesh, part, 2)
        rows.append(np.asarray(collect(batch.index)).tolist())
    report(reads=reads, rows=rows)

    # All processes save; process 0 manages the folder.
    folder = Path(sys.argv[4])
    if process == 0:
        (folder / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    hosts.barrier()
    def put(x, *spec):
        return jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, PartitionSpec(*spec)), x.__getitem__)
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    items = lambda step: {
        "params": {"w": put(values * step, "fsdp"),
                   "v": put(values + step, None, ("data", "fsdp"))},
        "counters": {"step": put(np.int32(step))},
        "data": {"position": step}, "meta": {"totals": {"by": process}}}
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        {name: items(1)[name] for name in ("params", "counters")})
    with Checkpoints(folder, keep=2, best_metric="loss") as checkpoints:
        assert checkpoints.restore(abstract) is None
        for step, loss in ((1, 2.0), (2, 1.0), (3, 5.0), (4, 6.0), (4, None)):
            checkpoints.save(step, items(step), None if loss is None else {"loss": loss})
        checkpoints.wait()
        report(steps=checkpoints.steps)
    hosts.barrier()
    if process == 0:
        (folder / "4" / "params" / "_METADATA").write_bytes(b"")
    with Checkpoints(folder, keep=2, best_metric="loss") as checkpoints:
        step, state = checkpoints.restore(abstract)
        same = all((np.asarray(shard.data) == (values * step)[shard.index]).all()
                   for shard in state["params"]["w"].addressable_shards)
        report(restored=step, same=same, meta=state["meta"], warned=len(checkpoints.warnings))

    # SIGTERM reaches one process, and all stop at the same check, also inside a watched loop.
    report(ready=True)
    done = 0
    with Preemption() as preemption:
        try:
            for _ in preemption.watch(range(6000)):
                time.sleep(0.01)
                done += 1
        except Preempted:
            report(stopped=done)
"""


def together(number, devices, folder, seconds=120):
    """Run TOGETHER, send SIGTERM to the last process, and return what each process reported."""
    command = script(TOGETHER, number, folder / "saved")
    with cluster.started(command, number, folder, devices) as all_:
        end = time.monotonic() + seconds
        while not all('"ready"' in all_.out(i) for i in range(number)):
            assert all(process.poll() is None for process in all_), all_.err(0) + all_.err(1)
            assert time.monotonic() < end
            time.sleep(0.05)
        all_[-1].send_signal(signal.SIGTERM)
        assert all_.wait(60) == [0] * number, all_.err(0)
        return [reported(all_, i) for i in range(number)]


def check_together(facts, number, folder):
    """Check what the processes of TOGETHER reported."""
    all_rows = set(range(16))
    for i, fact in enumerate(facts):
        assert fact["agreed"] == {"from": 0, "steps": [1, 2]}
        assert fact["decided"] == ([0] if i == 0 else [])
        assert (fact["count"], fact["first"]) == (number, i == 0)
        assert (fact["refused"], fact["field"]) == ("refused by 0", "objective")
        assert fact["frames"] == ("the frames" if i == 0 else "")
        # Shards of 4 rows, 2 in each rollout batch; the order is the same for any number of hosts.
        assert fact["rows"] == [
            [0, 1, 4, 5, 8, 9, 12, 13],
            [2, 3, 6, 7, 10, 11, 14, 15],
        ]
        assert fact["steps"] == [2, 3, 4]
        assert (fact["restored"], fact["same"]) == (3, True)
        assert fact["meta"] == {"totals": {"by": 0}}
        assert fact["warned"] == (1 if i == 0 else 0)
        assert fact["stopped"] == facts[0]["stopped"] < 6000
    assert [len(fact["reads"]) for fact in facts] == [16 // number] * number
    assert set.union(*(set(fact["reads"]) for fact in facts)) == all_rows
    assert sorted(path.name for path in (folder / "saved").iterdir()) == ["2", "3", "damaged"]


def check_restored_by_one_process(folder):
    mesh = make_mesh(1, 4, 2)
    sharding = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))
    array = lambda *spec: jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=sharding(*spec))
    params = {"w": array("tensor", "fsdp"), "v": array("fsdp")}
    with Checkpoints(folder / "saved") as checkpoints:
        step, state = checkpoints.restore({"params": params})
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    assert step == 3
    np.testing.assert_array_equal(state["params"]["w"], values * 3)
    np.testing.assert_array_equal(state["params"]["v"], values + 3)


def test_two_processes_agree_read_save_and_stop_as_one(tmp_path):
    check_together(together(2, 2, tmp_path), 2, tmp_path)
    check_restored_by_one_process(tmp_path)


HOST = socket.gethostname()


def test_a_process_that_fails_stops_the_others(tmp_path):
    code = """
with multihost.Joined(address, number, process, 60):
    if process == 1:
        raise UserError("the disk of\\n this host is full")
    hosts.barrier()
"""
    with cluster.started(script(code, 2), 2, tmp_path, 1) as both:
        assert both.wait(60) == [2, 2]
    assert both.err(1) == "error: the disk of this host is full\n"
    assert both.err(0) == (
        f"error: process 0 on {HOST} stops because process 1 on {HOST} failed: "
        "the disk of this host is full\n"
    )


JOINED_WITH_LOG = """
workdir = Path(sys.argv[4])
with multihost.Joined(address, number, process, 60):
    workdir.mkdir(exist_ok=True)
    multihost.open_log(workdir)
"""


def wait_until_ready(processes, seconds=90):
    end = time.monotonic() + seconds
    while not all('"ready"' in processes.out(i) for i in range(len(processes))):
        assert all(process.poll() is None for process in processes), processes.err(0)
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_an_exception_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    code = (
        JOINED_WITH_LOG
        + """
    if process == 1:
        raise ValueError("no\\n such thing")
    hosts.barrier()
"""
    )
    workdir = tmp_path / "run"
    with cluster.started(script(code, 2, workdir), 2, tmp_path, 1) as both:
        assert both.wait(60) == [1, 1]
    log = workdir / "logs" / "process-1.log"
    assert both.err(1) == (
        f"error: process 1 on {HOST} failed: ValueError: no such thing; the traceback is in {log}\n"
    )
    assert both.err(0) == (
        f"error: process 0 on {HOST} stops because process 1 on {HOST} failed: "
        f"ValueError: no such thing; its traceback is in {log}\n"
    )
    assert "Traceback (most recent call last)" in log.read_text()


WAIT_IN_A_COLLECTIVE = """
    from rlp.runtime import signals
    signals.before_end((workdir / f"released-{process}").touch)  # as a lease does
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather
    process_allgather(np.array(1))
    report(ready=True)
    if process == victim:
        time.sleep(600)
    process_allgather(np.array(1))
"""


def test_the_other_names_process_0_when_that_is_killed(tmp_path):
    """JAX's client aborts when process 0 is gone; our line and exit status come first. (See
    tests/launch/hosts_test.py for the loss of another process.)"""
    code = JOINED_WITH_LOG + WAIT_IN_A_COLLECTIVE.replace("victim", "0")
    workdir = tmp_path / "run"
    with cluster.started(script(code, 2, workdir), 2, tmp_path, 1) as both:
        wait_until_ready(both)
        time.sleep(1)  # until process 1 waits in the collective
        both[0].send_signal(signal.SIGKILL)
        start = time.monotonic()
        statuses = both.wait(60)
        assert time.monotonic() - start < 15
    assert statuses[1] == 1
    assert both.err(1) == (
        f"error: process 1 on {HOST} stops because process 0 on {HOST} is gone: it was killed, or "
        f"it crashed (its log is {workdir}/logs/process-0.log); start all processes again to "
        "resume from the last checkpoint\n"
    )
    assert "Traceback" in (workdir / "logs" / "process-1.log").read_text()
    assert (workdir / "released-1").exists()


@pytest.mark.slow
def test_a_signal_before_there_is_state_to_save_is_told_to_the_others(tmp_path):
    code = "from rlp.runtime import signals\nsignals.install()\n" + JOINED_WITH_LOG
    code += WAIT_IN_A_COLLECTIVE.replace("victim", "1")
    with cluster.started(script(code, 2, tmp_path / "run"), 2, tmp_path, 1) as both:
        wait_until_ready(both)
        both[1].send_signal(signal.SIGTERM)
        assert both.wait(60) == [1, -signal.SIGTERM]
    assert both.err(1).split("\n") == ["", "stopped by SIGTERM", ""]
    (line,) = both.err(0).splitlines()
    assert line.startswith(
        f"error: process 0 on {HOST} stops because process 1 on {HOST} was stopped by a signal"
    )


@pytest.mark.slow
def test_the_others_name_a_process_that_is_frozen(tmp_path):
    code = "from rlp.runtime import heartbeat\nheartbeat.SILENCE_S = 5.0\n" + JOINED_WITH_LOG
    code += WAIT_IN_A_COLLECTIVE.replace("victim", "1")
    with cluster.started(script(code, 2, tmp_path / "run"), 2, tmp_path, 1) as both:
        wait_until_ready(both)
        both[1].send_signal(signal.SIGSTOP)
        assert both[0].wait(60) == 1
    (line,) = both.err(0).splitlines()
    assert line.startswith(f"error: process 0 on {HOST} stops because process 1 on {HOST} is gone")


@pytest.mark.slow
def test_logs_that_process_0_does_not_see_are_refused(tmp_path):
    code = """
multihost.SHARED_S = 1.0
workdir = Path(sys.argv[4]) / str(process)
with multihost.Joined(address, number, process, 60):
    workdir.mkdir(parents=True)
    multihost.open_log(workdir)
"""
    with cluster.started(script(code, 2, tmp_path / "runs"), 2, tmp_path, 1) as both:
        assert both.wait(60) == [2, 2]
    line = f"--workdir={tmp_path}/runs/0 is not shared by all hosts: process 1 on {HOST}"
    for i in range(2):
        assert both.err(i).startswith(f"error: {line} has written process-1.log there")
        assert both.err(i).endswith("use a folder that all hosts share\n")
        assert both.err(i).count("\n") == 1


def test_what_the_processes_were_given_is_compared(tmp_path):
    code = """
with multihost.Joined(address, number, process, 60):
    hosts.check_same({"x": 1})
    hosts.check_same_data({"data.train": {"digest": "1", "documents": 3}})
    try:
        hosts.check_same_data({"data.train": {"digest": str(process), "documents": 3 + process}})
    except UserError as error:
        report(data=str(error))
    hosts.check_same({"x": 1, "y": process})
"""
    with cluster.started(script(code, 2), 2, tmp_path, 1) as both:
        assert both.wait(60) == [2, 2]
    for i in range(2):
        assert reported(both, i)["data"].startswith(
            f"process 1 on {HOST} has different data than process 0 on {HOST} (data.train: 3 "
        )
        assert f"y is 0 on process 0 on {HOST} and 1 on process 1 on {HOST}; " in both.err(i)
        assert both.err(i).count("\n") == 1


@pytest.mark.slow
def test_another_number_of_processes_is_refused_by_all(tmp_path):
    numbers = (2, 3)
    code = "with multihost.Joined(address, number, process, 100):\n    report(joined=True)"
    command = lambda address, i: script(code, numbers[i])(address, i)
    with cluster.started(command, 2, tmp_path, 1) as both:
        assert both.wait(60) == [2, 2]
    for i in range(2):
        assert both.out(i) == ""
        assert both.err(i).startswith(
            "error: the processes of this run differ: --num_processes is "
            f"{numbers[0]} on process 0 on {HOST} and {numbers[1]} on process 1 on {HOST}; "
        )


def test_a_process_that_waits_in_vain_names_itself_and_the_address(tmp_path):
    """Process 0 of one run that no process joins, and process 1 of another without a process 0."""
    code = """
with multihost.Joined(address, number, process, 3):
    report(joined=True)
"""
    command = script(code, 2)
    with (
        cluster.started(command, 1, tmp_path / "first") as first,
        cluster.started(lambda address, _: command(address, 1), 1, tmp_path / "second") as second,
    ):
        assert first.wait(60) + second.wait(60) == [2, 2]
    assert re.fullmatch(
        rf"error: process 0 on {HOST} waited 3 s \(--join_timeout\) at 127\.0\.0\.1:\d+, but 1 of 2"
        r" processes did not connect: process 1; start all processes .*--num_processes\n",
        first.err(0),
    )
    assert re.fullmatch(
        rf"error: process 1 on {HOST} waited 3 s \(--join_timeout\) for process 0 at 127\.0\.0\.1:"
        r"\d+, but nothing answered there; start process 0 .*--coordinator_address\n",
        second.err(0),
    )
    assert first.out(0) == second.out(0) == ""


def test_a_port_that_is_taken_is_refused(monkeypatch):
    joins = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: joins.append(1))
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: port {port} of .* use another"):
            multihost.Joined(f"127.0.0.1:{port}", 2, 0).__enter__()
    assert joins == []
