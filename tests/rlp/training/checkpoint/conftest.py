"""Fixtures with checkpoints."""

import shutil
from pathlib import Path

import pytest

from rlp.training.checkpoint import Checkpoints
from tests.support.checkpoints import make_items


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 1 and 2 of `make_items`."""
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(workdir / "checkpoints", best_metric="think_loss") as checkpoints:
        checkpoints.save(1, make_items(1), {"think_loss": 0.3})
        checkpoints.save(2, make_items(2), {"think_loss": 0.5})
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run"))
