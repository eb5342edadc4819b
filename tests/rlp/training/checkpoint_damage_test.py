"""Damage of a checkpoint is found, and kills leave a whole one."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.runtime import run_folder
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from rlp.training.checkpoint import folder as folders
from tests.support.checkpoints import (
    abstract,
    array_file,
    bits_of,
    empty,
    flip,
    make_items,
    restore,
)
from tests.support.paths import ROOT

# Damage.


def test_every_change_to_every_file_is_found(workdir):
    folder = workdir / "checkpoints" / "2"
    assert folders.find_fault(folder, contents=True) is None
    names = [*folders.read_manifest(folder)["files"], run_folder.MANIFEST]
    assert len(names) > 20
    for name in names:
        path = folder / name
        content = path.read_bytes()
        for spoil in (
            lambda path=path: path.unlink(),
            lambda path=path, content=content: path.write_bytes(content[: len(content) // 2]),
            lambda path=path, content=content: path.write_bytes(content + b"\0"),
            lambda path=path: flip(path),
        ):
            spoil()
            assert folders.find_fault(folder, contents=True), name
            path.write_bytes(content)
    assert folders.find_fault(folder, contents=True) is None


def put_another_step_there(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


def put_a_file_there(folder):
    shutil.rmtree(folder)
    folder.write_text("garbage")


DAMAGE = {
    "array file cut short": lambda folder: os.truncate(array_file(folder), 100),
    "one bit of an array flipped": lambda folder: flip(array_file(folder, "optimizer")),
    "metadata deleted": lambda folder: (folder / "params" / "_METADATA").unlink(),
    "checkpoint metadata deleted": lambda folder: (folder / "_CHECKPOINT_METADATA").unlink(),
    "item missing": lambda folder: shutil.rmtree(folder / "baseline"),
    "figures garbled": lambda folder: flip(folder / "metrics" / "metrics"),
    "manifest deleted": lambda folder: (folder / run_folder.MANIFEST).unlink(),
    "manifest garbled": lambda folder: (folder / run_folder.MANIFEST).write_bytes(b"\xff\0{"),
    "emptied": empty,
    "a file in its place": put_a_file_there,
    "another step under its name": put_another_step_there,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(workdir, damage):
    directory = workdir / "checkpoints"
    DAMAGE[damage](directory / "2")
    with Checkpoints(directory, best_metric="think_loss") as checkpoints:
        step, restored = restore(checkpoints, abstract(make_items(1)))
        assert step == 1
        assert bits_of(restored) == bits_of(make_items(1))
        assert len(checkpoints.warnings) == 1
        assert checkpoints.warnings[0].startswith("checkpoint 2 is damaged (")
        checkpoints.save(2, make_items(5))
    with Checkpoints(directory, best_metric="think_loss") as checkpoints:
        step, restored = restore(checkpoints, abstract(make_items(5)))
        assert (step, checkpoints.warnings) == (2, [])
    assert bits_of(restored) == bits_of(make_items(5))


def test_all_damaged_is_an_error_until_the_user_clears_them(workdir):
    directory = workdir / "checkpoints"
    flip(array_file(directory / "1"))
    os.truncate(array_file(directory / "2"), 0)
    for _ in range(2):
        message = "every checkpoint .* is damaged; .* delete"
        with Checkpoints(directory) as checkpoints, pytest.raises(UserError, match=message):
            checkpoints.restore(abstract(make_items(1)))
    shutil.rmtree(directory / "damaged")
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.restore(abstract(make_items(1))) is None


def test_a_tree_that_does_not_fit_is_an_error_and_no_damage(workdir):
    wanted = abstract(make_items(2))
    other = wanted | {
        "optimizer": jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*x.shape, 3), jnp.float16), wanted["optimizer"]
        )
    }
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        message = (
            r"`optimizer` of checkpoint .*/2 does not fit this run's config: "
            r".*1/mean/embed is float32\[16,8\] there and float16\[16,8,3\] here; .*; and 1 more$"
        )
        with pytest.raises(UserError, match=message):
            checkpoints.restore(other)
        assert (checkpoints.steps, checkpoints.warnings) == ([1, 2], [])
        assert restore(checkpoints, wanted)[0] == 2


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
    # The first rounds start what the libraries keep, and threads of a pool come and go.
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


# Kills.


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
        if moment == "before the commit":  # all is written, and nothing of it may count
            assert unfinished
            assert (restored_step, weights[0, 0]) == before
        else:
            assert (restored_step, weights[0, 0]) in (before, after)
        assert not list(directory.glob(f"*{folders.UNFINISHED}"))
        checkpoints.save(2, restored)
    assert [path.name for path in directory.iterdir()] == ["2"]
