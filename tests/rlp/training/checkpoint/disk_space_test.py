"""A run logs the size of a checkpoint and the free space, and warns if it is too small."""

import logging
import types

import jax.numpy as jnp
import pytest

from rlp.run import memory_check
from rlp.training.checkpoint import disk_space
from tests.support import runs


@pytest.mark.parametrize(
    ("there", "free", "level"),
    [
        ([], 4 * 2**20, logging.INFO),
        ([], 4 * 2**20 - 1, logging.WARNING),
        ([1, 2, 3], 2**20, logging.INFO),  # existing checkpoints need no more space
        ([1, 2, 3, 4, 5], 2**20 - 1, logging.WARNING),  # the next one does not fit
    ],
)
def test_one_line_says_what_a_checkpoint_takes(tmp_path, monkeypatch, caplog, there, free, level):
    for step in there:
        (tmp_path / str(step)).mkdir()
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    items = {"params": {"w": jnp.zeros((512, 256))}, "optimizer": [jnp.zeros(2**17)]}  # 1 MiB
    with caplog.at_level(logging.INFO):
        disk_space.log_size(tmp_path, items, 4)
    assert [record.levelno for record in caplog.records] == [level]
    assert "a checkpoint takes 1 MiB; " in caplog.text
    assert ("lower checkpoint.keep" in caplog.text) == (level == logging.WARNING)


@pytest.mark.parametrize(
    ("change", "last", "most"),
    [
        ({}, 1000, 4),  # two are kept, then the best and the one that is being written
        ({"checkpoint.keep": 10**30}, None, 10**30 + 2),
        ({"checkpoint.keep": 10**30}, 1000, 6),
        ({"checkpoint.keep": 10**30, "evaluation.every": 500}, 1000, 8),
    ],
)
def test_how_many_checkpoints_there_are_at_one_time(change, last, most):
    config = runs.config(runs.COMPASS, {"checkpoint.every": 200, "evaluation.every": 0}, change)
    assert memory_check.checkpoints(config, last) == most
