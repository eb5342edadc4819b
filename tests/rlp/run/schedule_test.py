"""When a run ends, and which steps drive its learning rate."""

import itertools
import json
from types import SimpleNamespace

import pytest

from configs import default
from rlp.run import finish, loop
from rlp.run.schedule import build_optimizer
from rlp.training.budget import UNITS
from rlp.training.trainers import RLPTrainer
from tests.support import runs
from tests.support.runs import Crash, crash_at, one_device  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_device", "early_warnings")


@pytest.mark.parametrize("unit", ["flops", "tokens"])
def test_matched_budgets_agree_within_one_step(unit, tmp_path, text, finished):
    """Match next-token training to RLP, and an interrupted RLP run to that."""
    rlp, cpt, again = finished(runs.config(runs.TEXT_RLP, text)), tmp_path / "cpt", tmp_path / "rlp"
    matched = lambda changes, other: runs.config(changes, text, {"match": f"{other}:{unit}"})
    loop.train(matched(runs.TEXT, rlp), cpt, report=False)
    back = matched(runs.TEXT_RLP, cpt)
    crashed(back, again, RLPTrainer, "step", 5)
    crashed(back, again, finish, "write_json", 1)  # after the last step and its checkpoint
    loop.train(back, again, report=False)

    for workdir, other in ((cpt, rlp), (again, cpt)):
        before, last = (line[UNITS[unit]] for line in runs.metrics(workdir)[-2:])
        result = json.loads((workdir / "evaluation.json").read_text())
        wanted = json.loads((other / "evaluation.json").read_text())[UNITS[unit]]
        assert result[UNITS[unit]] == last
        assert result["step"] == result["steps"] == len(runs.metrics(workdir)) > 5
        assert abs(last - wanted) < last - before
    assert runs.metrics(again)[-1]["step"] == 7
    outcomes = [runs.outcome(workdir) for workdir in (rlp, again)]
    for outcome in outcomes:
        del outcome["config"]  # names the other run
    assert outcomes[0] == outcomes[1]


def test_seconds_of_all_devices_are_matched(tmp_path, text, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "evaluation.json").write_text('{"seconds_device": 3.4}')
    config = runs.config(runs.TEXT, text, {"match": f"{tmp_path / 'other'}:seconds"})
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    result = loop.train(config, tmp_path / "run", report=False)
    assert result["step"] == result["seconds_device"] == 3  # a tick a step


def crashed(config, workdir, *moment):
    with crash_at(*moment), pytest.raises(Crash):
        loop.train(config, workdir, report=False)


def test_updates_and_not_steps_drive_the_schedule():
    """The cosine schedule ends with the run even if each rollout has several updates."""
    config = default.get_config()
    config.optimizer.schedule, config.optimizer.warmup_steps = "cosine", 10
    config.rlp.updates_per_rollout, config.rlp.minibatches = 2, 2
    peak, end = config.optimizer.learning_rate, config.optimizer.final_share
    for objective, updates in (("next_token", 50), ("rlp", 200)):
        config.objective = objective
        rate = build_optimizer(config, 50).learning_rate
        assert float(rate(9)) == pytest.approx(peak)
        assert float(rate(updates)) == pytest.approx(end * peak)
        assert float(rate(updates - 1)) > end * peak
