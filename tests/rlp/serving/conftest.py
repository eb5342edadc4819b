"""A tiny model behind a server, which the tests of this folder share."""

import time

import pytest

from rlp.evaluation.generation.batch import Batch
from tests.support import served


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return served.tiny_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(model):
    pytest.importorskip("starlette", reason="requirements-serve.txt")
    with served.served(model, texts=4, queue=200) as running:
        yield running


@pytest.fixture
def slow_steps(monkeypatch):
    """Make every step of a batch take at least 0.1 s; the list has an entry for each."""
    steps, step = [], Batch.step

    def slow(self):
        time.sleep(0.1)
        steps.append(self)
        return step(self)

    monkeypatch.setattr(Batch, "step", slow)
    return steps
