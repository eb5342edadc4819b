"""Documents that end within H tokens of their given forks."""

import json

import pytest

from rlp.data.compass import ANSWER_LENGTH
from rlp.metrics import catalogue
from rlp.run import loop
from tests.support import runs
from tests.support.runs import one_device  # noqa: F401  a fixture

SAME = ("loss", "grad_norm", "no_think_loss", "reward_mean", "information_gain", "target_loss")


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_run_with_a_longer_horizon_is_the_run_of_the_answers(tmp_path):
    """Training and held-out evaluation; no position but the given one has 21 tokens from it on."""
    steps, held_out = [], []
    for horizon in (ANSWER_LENGTH, 21):
        folder = tmp_path / str(horizon)
        limits = {"rlp.horizon": horizon, "rlp.target_weight": 0.5, "rlp.min_prefix": 2}
        loop.train(runs.config(runs.COMPASS, {"objective": "rlp", "steps": 2}, limits), folder)
        steps.append(runs.metrics(folder))
        held_out.append(json.loads((folder / "evaluation.json").read_text()))
    close = lambda value: pytest.approx(value, rel=1e-4, abs=1e-5)
    for short, long in zip(*steps, strict=True):
        assert {name: long[name] for name in SAME} == close({name: short[name] for name in SAME})
    short, long = ({name: x[name] for name in catalogue.names("documents")} for x in held_out)
    assert long == close(short)
