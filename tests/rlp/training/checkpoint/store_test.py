"""Checkpoints are restored bit for bit or not at all, whenever the process is killed."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints, load_params
from rlp.training.checkpoint import folder as folders
from tests.support.checkpoints import abstract, bits_of, make_items, restore
from tests.support.paths import ROOT


def test_restored_equals_saved_bit_for_bit(workdir):
    items = make_items(2)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step, restored = restore(checkpoints, abstract(items))
        assert checkpoints.warnings == []
    assert step == 2
    assert bits_of(restored) == bits_of(items)


def test_nothing_saved_gives_none(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == []
        assert checkpoints.restore(abstract(make_items(0))) is None


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("data")])
def test_the_caller_may_overwrite_everything_once_save_returns(tmp_path, spec):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    values = np.arange(2**21, dtype=np.float32)
    on_device = jax.device_put(values, NamedSharding(mesh, spec)) + 0
    on_host = values.copy()
    meta = {"tokens": 1}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": {"device": on_device, "host": on_host}, "meta": meta})
        jax.block_until_ready(overwrite(on_device))
        on_host[:] = -1
        meta["tokens"] = 2
        struct = jax.ShapeDtypeStruct(values.shape, values.dtype)
        _, restored = restore(checkpoints, {"params": {"device": struct, "host": struct}})
    np.testing.assert_array_equal(restored["params"]["device"], values)
    np.testing.assert_array_equal(restored["params"]["host"], values)
    assert restored["meta"] == {"tokens": 1}


def test_data_position_and_step_are_files_of_their_own(workdir):
    folder = workdir / "checkpoints" / "2"
    assert json.loads((folder / "step" / "data.json").read_text()) == 2
    assert json.loads((folder / "data" / "data.json").read_text()) == {"record": 32}


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("reopen", [False, True])
def test_keeps_the_latest_and_the_best(tmp_path, lower_is_better, reopen):
    values = [
        None,
        math.nan,
        0.4,
        0.1,
        0.1,
        0.9,
        0.9,
        0.1,
        None,
        math.inf,
        -math.inf,
        math.nan,
        0.5,
    ]
    sign = -1 if lower_is_better else 1

    def open_it():
        return Checkpoints(
            tmp_path / "checkpoints",
            keep=2,
            best_metric="accuracy",
            lower_is_better=lower_is_better,
        )

    checkpoints = open_it()
    wanted = {"w": jax.ShapeDtypeStruct((3,), jnp.int32)}
    ranked = []
    for step, value in enumerate(values):
        metrics = None if value is None else {"accuracy": value, "other": -step}
        checkpoints.save(step, {"params": {"w": jnp.full(3, step)}}, metrics)
        checkpoints.wait()
        if value is not None and math.isfinite(value):
            ranked.append((sign * value, step))
        best = {max(ranked)[1]} if ranked else set()
        assert set(checkpoints.steps) == {step, max(step - 1, 0)} | best
        for best_step in best:
            params, loaded_step = load_params(f"{tmp_path}@best", wanted)
            assert loaded_step == best_step
            assert params["w"].tolist() == [best_step] * 3
        if reopen:
            checkpoints.close()
            checkpoints = open_it()
    checkpoints.close()


def test_another_best_metric_starts_over(tmp_path):
    items = {"params": {"w": jnp.zeros(3)}}
    for name, values in (("a", [0.1, 0.2]), ("b", [0.9, 0.8, 0.85, 0.86])):
        with Checkpoints(tmp_path / "checkpoints", keep=1, best_metric=name) as checkpoints:
            first = max(checkpoints.steps, default=-1) + 1
            for step, value in enumerate(values, first):
                checkpoints.save(step, items, {name: value})
    assert checkpoints.steps == [3, 5]
    assert load_params(f"{tmp_path}@best", abstract(items)["params"])[1] == 3


def test_saving_a_step_again_replaces_it(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        for seed in (7, 8):
            checkpoints.save(2, make_items(seed))
        step, restored = restore(checkpoints, abstract(make_items(8)))
        assert (step, checkpoints.steps, checkpoints.warnings) == (2, [1, 2], [])
    assert bits_of(restored) == bits_of(make_items(8))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_a_step_saved_again_without_metrics_stays_the_best(workdir):
    with Checkpoints(workdir / "checkpoints", keep=1, best_metric="think_loss") as checkpoints:
        checkpoints.save(1, make_items(1))
        checkpoints.save(3, make_items(3), {"think_loss": 0.4})
    assert checkpoints.steps == [1, 3]
    assert load_params(f"{workdir}@best", abstract(make_items(1))["params"])[1] == 1


def test_a_failed_save_is_reported_and_leaves_the_last_good_one(workdir, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(workdir / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_manifest", no_space)
        checkpoints.save(2, make_items(9))
        with pytest.raises(UserError, match="No space left.*free some space.*same command again"):
            checkpoints.wait()
    step, restored = restore(checkpoints, abstract(make_items(2)))
    assert (step, checkpoints.warnings) == (2, [])
    assert bits_of(restored) == bits_of(make_items(2))
    checkpoints.save(2, make_items(9))
    assert bits_of(restore(checkpoints, abstract(make_items(9)))[1]) == bits_of(make_items(9))
    checkpoints.close()


def test_saves_and_restores_leave_no_descriptors_and_no_threads(tmp_path):
    items, held = {"params": {"w": jnp.zeros(4)}}, []
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        for step in range(10):
            checkpoints.save(step, items)
            restore(checkpoints, abstract(items))
            held.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
    # Libraries start threads in the first rounds, and threads of a pool come and go.
    for counts in zip(*held, strict=True):
        assert max(counts[5:]) <= max(counts[:5]) + 2


def test_a_save_that_must_not_take_its_name_any_more_does_not(tmp_path):
    allowed = [True]

    def may_write():
        if not allowed[0]:
            raise UserError("another process has the folder")

    items = {"params": {"w": jnp.zeros(4)}}
    with Checkpoints(tmp_path / "checkpoints", may_write=may_write) as checkpoints:
        checkpoints.save(1, items)
        checkpoints.wait()
        allowed[0] = False
        checkpoints.save(2, items)
        with pytest.raises(UserError, match="another process has the folder"):
            checkpoints.wait()
        assert checkpoints.steps == [1]


KILLED = """
    import sys, time
    import jax.numpy as jnp
    from rlp.training.checkpoint import Checkpoints, folder

    directory, step, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    checkpoints = Checkpoints(directory, keep=1)
    checkpoints.save(1, {"params": {"w": jnp.full((1024, 1024), 1.0)}})
    checkpoints.wait()

    def stop(*_):
        print("now", flush=True)
        time.sleep(60)

    if moment == "before the commit":
        folder.write_manifest = stop
    checkpoints.save(step, {"params": {"w": jnp.full((1024, 1024), 2.0)}})
    if moment == "while writing":
        stop()
    checkpoints.wait()
"""


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("moment", ["before the commit", "while writing"])
def test_kill_9_in_a_save_leaves_a_whole_checkpoint(tmp_path, step, moment):
    directory = tmp_path / "checkpoints"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), directory, str(step), moment],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    unfinished = list(directory.glob(f"*{folders.UNFINISHED}"))
    with Checkpoints(directory, keep=1) as checkpoints:
        wanted = {"params": {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}}
        restored_step, restored = restore(checkpoints, wanted)
        assert checkpoints.warnings == []
        weights = np.asarray(restored["params"]["w"])
        assert (weights == weights[0, 0]).all()
        before, after = (1, 1.0), (step, 2.0)
        if moment == "before the commit":  # all files are written, but the step is not valid
            assert unfinished
            assert (restored_step, weights[0, 0]) == before
        else:
            assert (restored_step, weights[0, 0]) in (before, after)
        assert not list(directory.glob(f"*{folders.UNFINISHED}"))
        checkpoints.save(2, restored)
    assert [path.name for path in directory.iterdir()] == ["2"]


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="checkpoint.keep=0; set it"):
        Checkpoints(tmp_path, keep=0)
    with Checkpoints(tmp_path, best_metric="think_los") as checkpoints:
        with pytest.raises(UserError, match="'think_los' is not.* use one of think_loss"):
            checkpoints.save(1, {"params": {"w": jnp.zeros(1)}}, {"think_loss": 1.0})
        assert checkpoints.steps == []
