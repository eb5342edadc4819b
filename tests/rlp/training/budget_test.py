"""The end of a run that matches the budget of another run."""

import json
import math

import numpy as np
import pytest

from rlp.runtime.errors import UserError
from rlp.training.budget import Budget, split, used_by
from rlp.training.cost import PARTS, Cost, Totals


def cost(tokens=0, **flops):
    counts = {"documents": tokens, "rollout": 0, "update": 0, "model_flops": sum(flops.values())}
    return Cost(**counts, flops=flops, seconds={})


def run_to(budget, costs):
    """Return the totals of a run that takes steps of these costs until it ends."""
    totals, step = Totals(), 0
    while not budget.reached(step, totals):
        totals.add(costs[step], seconds=1.0, devices=1)
        step += 1
    return totals, step


def test_totals_add_up_by_part_and_by_device():
    totals = Totals()
    totals.add(cost(tokens=7, prefill=2, update=10), seconds=2.0, devices=4)
    totals.add(cost(tokens=5, decode=3, update=10), seconds=0.5, devices=4)
    actual = totals.metrics()
    assert (actual["tokens_documents"], actual["seconds_device"]) == (12, 10.0)
    parts = {part: actual[f"flops_{part}"] for part in PARTS}
    assert parts == dict.fromkeys(PARTS, 0) | {"prefill": 2, "decode": 3, "update": 20}
    assert actual["flops"] == 25
    assert totals.seconds_train == 2.5
    assert totals.last_step["flops"] == 13
    assert totals.last_step["seconds_device"] == 2.0


def test_steps_of_one_size_are_rounded():
    """100 tokens a step: the number of steps is amount / 100, rounded, and at least 1."""
    for amount in (1, 99, 149, 151, 420, 449, 451, 1000):
        _, steps = run_to(Budget("tokens_documents", amount), [cost(tokens=100)] * 20)
        assert steps == max(1, round(amount / 100))


def test_steps_of_any_size_end_within_one_of_the_budget():
    random = np.random.default_rng(0)
    for _ in range(200):
        costs = [cost(decode=int(n)) for n in random.integers(1, 1000, 500)]
        budget = Budget("flops", int(random.integers(1, 50_000)))
        totals, steps = run_to(budget, costs)
        off = totals.metrics()["flops"] - budget.amount
        last = costs[steps - 1].flops["decode"]
        assert -last / 2 <= off < last


def test_the_end_follows_from_what_a_checkpoint_holds():
    costs = [cost(tokens=n) for n in (3, 9, 4, 8, 2, 6, 1)]
    budget = Budget("tokens_documents", 24)
    whole, steps = run_to(budget, costs)
    assert 1 < steps < 7
    totals = Totals()
    for step, each in enumerate(costs[:steps]):
        assert not budget.reached(step, totals)
        totals.add(each, seconds=1.0, devices=1)
        totals = Totals(**json.loads(json.dumps(vars(totals))))
    assert budget.reached(steps, totals)
    assert totals == whole


def test_what_is_left_is_expected_to_be_like_what_was():
    totals = Totals()
    totals.add(cost(tokens=10), seconds=3.0, devices=2)
    assert Budget("seconds_device", 60.0).expected(1, totals) == 10
    assert Budget("seconds_device", 1.0).expected(1, totals) == 1


@pytest.mark.parametrize("match", ["a:flop", "flops", ":flops", "a:", "a:Tokens"])
def test_what_is_no_match_is_refused(match):
    with pytest.raises(UserError, match="is not '<workdir>:flops', '<workdir>:tokens' or"):
        split(match)


def test_a_budget_is_what_the_other_run_says(tmp_path):
    folder = tmp_path / "a:b"
    with pytest.raises(UserError, match="a:b is not a finished run"):
        used_by(f"{folder}:flops")
    folder.mkdir()
    metrics = {"flops": 2**60 + 1, "tokens_documents": 33, "think_loss": math.pi}
    (folder / "evaluation.json").write_text(json.dumps(metrics))
    assert used_by(f"{folder}:flops") == 2**60 + 1
    assert used_by(f"{folder}:tokens") == 33
    with pytest.raises(UserError, match=r"evaluation\.json does not contain seconds_device; run"):
        used_by(f"{folder}:seconds")
    (folder / "evaluation.json").write_text('{"flops": 0}')
    with pytest.raises(UserError, match="took no step; name another run"):
        used_by(f"{folder}:flops")
