"""Every fault gives its warning, once and at its step; noise, outliers and gaps give none."""

import math
import random
import re

import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from rlp.engine.rollout_metrics import names_target
from rlp.metrics.warning_rules import RULES
from rlp.metrics.watch import Watch
from rlp.runtime.config_json import fields

# Mean and standard deviation of every metric that a rule reads, in a healthy run with few forks.
HEALTHY = {
    "thought_entropy": (0.5, 0.05),
    "zero_variance_share": (0.2, 0.15),
    "distinct_thoughts": (0.9, 0.05),
    "reward_mean": (0.1, 0.3),
    "thought_length": (40.0, 5.0),
    "closed_fraction": (0.9, 0.05),
    "no_think_loss": (2.2, 0.4),
    "target_named_share": (0.3, 0.15),
}
EVERY = 10  # steps between evaluations
# Faults: metric values from step 41 on. If k of the last 10 steps are beyond the threshold, their
# mean differs from that of the first steps by k/10 of the jump, with a standard error of
# sqrt(k (10 - k) / 900) of it: the ratio exceeds 5 from k = 8 on, and from 12 of 20 steps on. The
# median of 10 steps is beyond the threshold from k = 6 on.
FAULTS = {
    "entropy_collapse": ({"thought_entropy": 0.02}, 48, "from 0.5 to 0.02 nats"),
    "zero_variance_groups": ({"zero_variance_share": 0.95}, 46, "zero_variance_share is 0.95"),
    "thoughts_shrinking": ({"thought_length": 12.0}, 48, "from 40.0 to 12.0 tokens"),
    "closed_share_falling": ({"closed_fraction": 0.5}, 48, "from 0.90 to 0.50"),
    "no_think_loss_degrading": ({"no_think_loss": 3.2}, 52, "from 2.200 to 3.200 nats"),
    "thoughts_name_the_target": ({"target_named_share": 0.8}, 52, "from 0.30 "),
}


def settings(**changes):
    return dict(fields(default.get_config())) | {"objective": "rlp"} | changes


def history(steps, change=lambda step, row: {}, seed=None):
    """Yield rows of a healthy run, updated by `change`; without noise if the seed is None."""
    rng = random.Random(seed)
    for step in range(1, steps + 1):
        noise = lambda size: rng.gauss(0, size) if seed is not None else 0.0
        row = {name: mean + noise(size) for name, (mean, size) in HEALTHY.items()}
        yield {"step": step, **row, **change(step, row)}


def given(rows, **changes):
    """Return (name, step) of the warnings for these rows, and the messages."""
    watch = Watch(settings(**changes), RULES)
    warnings_by_row = [watch.add(row) for row in rows]
    assert sum(warnings_by_row, []) == watch.given
    return [(w.name, w.step) for w in watch.given], [w.message for w in watch.given]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_its_warning_once_at_its_step(name):
    fault, step, values = FAULTS[name]
    found, (message,) = given(history(200, lambda step, row: fault if step > 40 else {}))
    assert found == [(name, step)]
    assert values in message


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_run_gives_none(seed):
    assert given(history(400, seed=seed)) == ([], [])


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_fault_is_found_in_scatter_within_its_steps(name, seed):
    shift = {metric: value - HEALTHY[metric][0] for metric, value in FAULTS[name][0].items()}

    def change(step, row):
        drifted = {metric: row[metric] + by for metric, by in shift.items()}
        return drifted if step > 40 else {}

    ((found, step),), _ = given(history(100, change, seed))
    assert found == name
    assert 40 < step <= 65


@pytest.mark.parametrize("value", [-1e3, 0.0, 1e3])
@pytest.mark.parametrize("at", [1, 3, 15, 30, 60])
def test_one_odd_step_gives_none(at, value):
    odd = dict.fromkeys(HEALTHY, value)
    assert given(history(100, lambda step, row: odd if step == at else {})) == ([], [])


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_a_step_without_a_figure_does_not_count(gap):
    """Such a step is ignored: the warning is delayed by the number of gaps."""

    def change(step, row):
        fault = {"thought_entropy": 0.02} if step > 40 else {}
        return {"thought_entropy": gap} if step in (2, 8, 43, 44) else fault

    assert given(history(100, change))[0] == [("entropy_collapse", 50)]


def test_closing_that_never_was_is_a_fault_where_the_rest_is_masked():
    never = lambda step, row: {"closed_fraction": 0.1}
    found, (message,) = given(history(100, never), **{"rlp.unclosed": "mask"})
    assert found == [("closed_share_falling", 15)]  # the first step with enough history
    assert "is 0.10" in message
    assert "rlp.unclosed='append' ('mask')" in message
    assert given(history(100, never), **{"rlp.unclosed": "append"}) == ([], [])


def test_held_out_loss_is_believed_before_that_of_training():
    def change(held_out):
        def change(step, row):
            evaluated = {"evaluation/no_think_loss": held_out(step)} if step % EVERY == 0 else {}
            return evaluated | ({"no_think_loss": 2.6} if step > 40 else {})

        return change

    assert given(history(100, change(lambda step: 2.0))) == ([], [])
    once = lambda step: 2.3 if step == 60 else 2.0
    assert given(history(100, change(once))) == ([], [])
    # The second evaluation in a row that is more than 0.05 nats above the first of all.
    found, (message,) = given(history(100, change(lambda step: 2.06 if step >= 70 else 2.0)))
    assert found == [("no_think_loss_degrading", 80)]
    assert "held-out no_think_loss rose from 2.000 to 2.060" in message


@pytest.mark.parametrize(
    "changes", [{"rlp.positions": "easy_to_hard"}, {"objective": "next_token"}]
)
def test_a_training_loss_that_rises_by_plan_or_without_thoughts_is_no_fault(changes):
    assert (
        given(history(100, lambda step, row: {"no_think_loss": 2 + step / 150}), **changes)[0] == []
    )


# ---- networks destroyed by the first few steps


def dead(metrics, alive=1, seed=0):
    """Yield rows of a run of which only the first `alive` steps are healthy."""
    rate = {"learning_rate": 1e-3, "grad_norm": 1.0}
    return history(60, lambda step, row: rate | (metrics(step) if step > alive else {}), seed)


NEXT_TOKEN = {"objective": "next_token", "model.vocab_size": 320}
UNIFORM = math.log(320)


@pytest.mark.parametrize("alive", [1, 4, 30])
@pytest.mark.parametrize("objective", ["next_token", "rlp"])
def test_a_loss_that_is_the_same_on_all_documents_is_named(alive, objective):
    noise = lambda step: 1e-7 * (step % 3)  # rounding errors
    rows = dead(lambda step: {"no_think_loss": UNIFORM + noise(step)}, alive)
    found, messages = given(rows, **NEXT_TOKEN | {"objective": objective})
    assert ("constant_loss", alive + 10) in found
    message = messages[[name for name, _ in found].index("constant_loss")]
    assert "5.7683 nats per token" in message
    assert "320 tokens" in message
    assert "lower optimizer.learning_rate (" in message


@pytest.mark.parametrize("alive", [1, 30])
def test_a_loss_above_that_of_guessing_is_named(alive):
    rows = dead(lambda step: {"no_think_loss": 900.0 + 400 * (step % 5)}, alive)
    found, messages = given(rows, **NEXT_TOKEN)
    assert found == [("worse_than_chance", alive + 10)]
    assert "at least 900 nats per token" in messages[0]
    assert "above the 5.768 of a uniform guess among 320 tokens" in messages[0]


@pytest.mark.parametrize("alive", [1, 3, 30])
def test_next_token_training_that_diverged_without_nan_is_named(alive):
    rng = random.Random(1)
    rows = list(dead(lambda step: {"no_think_loss": 5.0 + rng.gauss(0, 0.1)}, alive))
    ((name, step),), (message,) = given(rows, **NEXT_TOKEN)
    assert (name, step) == ("loss_rose", alive + 10)
    assert "diverged" in message
    assert ("loss_rose", step) not in given(rows, **NEXT_TOKEN | {"objective": "rlp"})[0]


def test_no_gradient_and_thoughts_that_are_all_the_same_are_named():
    rows = dead(lambda step: {"grad_norm": 0.0, "distinct_thoughts": 0.125})
    found, _ = given(rows, **{"rlp.group_size": 8})
    assert found == [("no_gradient", 11), ("identical_thoughts", 11)]
    assert given(dead(lambda step: {"grad_norm": 1e-9, "distinct_thoughts": 0.13})) == ([], [])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", ["next_token", "rlp"])
def test_a_fresh_network_near_chance_and_one_that_learns_are_not_dead(seed, objective):
    rng = random.Random(seed)

    def change(step, row):
        loss = UNIFORM + 0.01 - 3 * (1 - math.exp(-max(step - 100, 0) / 50))
        return {
            "no_think_loss": loss + rng.gauss(0, 0.02),
            "learning_rate": 1e-9 * step,
            "grad_norm": 1e-6,
            "target_named_share": 0.3,
        }

    assert given(history(400, change, seed), **NEXT_TOKEN | {"objective": objective}) == ([], [])


def test_a_run_that_is_not_to_learn_is_not_dead():
    rows = history(60, lambda step, row: {"no_think_loss": 2.0, "learning_rate": 0.0})
    assert given(rows, **NEXT_TOKEN) == ([], [])


def test_messages_name_fields_of_the_config_with_their_values():
    wrong = {metric: value for fault, _, _ in FAULTS.values() for metric, value in fault.items()}
    rows = list(history(100, lambda step, row: wrong if step > 40 else {}))
    known = settings(**{"rlp.positions": "entropy", "rlp.temperature": 0.6})
    found, messages = given(rows, **known)
    assert len(found) == len(FAULTS)
    for message in messages:
        cures = re.findall(r"(raise|lower|set) (\w+\.\w+)(?:='(\w+)')? \((.+?)\)", message)
        assert cures
        for _, path, wanted, now in cures:
            assert repr(known[path]) == now
            assert wanted != known[path]
    assert (
        "rlp.temperature (0.6)" in messages[[name for name, _ in found].index("entropy_collapse")]
    )


def test_a_thought_names_the_target_that_stands_whole_among_its_words():
    actions = [
        [5, 6, 7, 8, 3],  # in the middle
        [5, 7, 6, 7, 3],  # at the end
        [6, 5, 7, 9, 3],  # not contiguous
        [9, 9, 9, 6, 7],  # closed by the ids (6, 7), which are not words of the thought
        [9, 9, 9, 6, 7],  # the same, not closed
        [7, 0, 0, 0, 0],  # shorter than the target
    ]
    words = [4, 4, 4, 3, 5, 1]
    as_branches = lambda x: jnp.asarray(x, jnp.int32)[None]

    def found(target, size=None):
        present = np.arange(len(target)) < (size or len(target))
        return names_target(
            *(as_branches(x) for x in (actions, words, [target] * 6)),
            jnp.broadcast_to(present, (1, 6, len(target))),
        )[0].tolist()

    assert found([6, 7]) == [True, True, False, False, True, False]
    # Of a longer target, only the tokens that the document has are named.
    for rest in ([9], [0, 0, 0], [1] * 5):
        assert found([6, 7, *rest], size=2) == found([6, 7])
    assert not any(found([5, 6, 7, 8, 3, 1]))  # the target is longer than every thought
