"""Damage to a checkpoint is detected, and the run falls back to the previous one."""

import os
import shutil

import pytest

from rlp.runtime import run_folder
from rlp.runtime.errors import UserError
from rlp.training.checkpoint import Checkpoints
from rlp.training.checkpoint import folder as folders
from tests.support.checkpoints import abstract, array_file, bits_of, flip, make_items, restore


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


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


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
    "metrics garbled": lambda folder: flip(folder / "metrics" / "metrics"),
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
        message = "every checkpoint .* is damaged; delete .* to start again"
        with Checkpoints(directory) as checkpoints, pytest.raises(UserError, match=message):
            checkpoints.restore(abstract(make_items(1)))
    shutil.rmtree(directory / "damaged")
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.restore(abstract(make_items(1))) is None
