"""Documents that end within H tokens of their given forks."""

import pytest

from rlp.data.compass import ANSWER_LENGTH
from rlp.run import loop
from tests.support import runs

SAME = ("loss", "grad_norm", "no_think_loss", "reward_mean", "information_gain", "target_loss")


@pytest.mark.slow
def test_a_run_with_a_longer_horizon_is_the_run_of_the_answers(tmp_path):
    """Training and held-out evaluation; no position but the given one has 21 tokens from it on."""
    found = []
    for horizon in (ANSWER_LENGTH, 21):
        folder = tmp_path / str(horizon)
        limits = {"rlp.horizon": horizon, "rlp.target_weight": 0.5, "rlp.min_prefix": 2}
        few = {"steps": 2, "evaluation.every": 2}
        config = runs.config(runs.COMPASS, {"objective": "rlp"}, limits, few)
        loop.train(config, folder)
        found.append(runs.metrics(folder))
    for short, long in zip(*found, strict=True):
        held_out = [name for name in short if name.startswith("evaluation/")]
        for name in (*SAME, *held_out):
            assert long[name] == pytest.approx(short[name], rel=1e-4, abs=1e-5), name
    assert len(held_out) > 5
