"""Declared readings of an objective are computed, and no others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.engine import readings, step
from rlp.objectives import Objective, registry
from rlp.runtime.errors import UserError
from rlp.training import flops
from tests.support import tiny

CONFIG = tiny.model_config(num_layers=1)
WORDS = tiny.words(CONFIG)
PARAMS = tiny.params(CONFIG)
BATCH = tiny.documents(0, [12, 9], 12, 22, forks=2)
KEY = jax.random.key(3)
GROUP, LIMIT = 4, 4


def read(name, outcome):
    """A reward that reduces a reading to a number per thought."""
    values = getattr(outcome, name)
    if name == "step":
        return jnp.full(outcome.closed.shape, values, jnp.float32)
    return values.sum(axis=-1).astype(jnp.float32) if values.ndim == 4 else 1.0 * values


def objective(*reads, reward=None):
    reward = reward or (lambda outcome: sum(read(name, outcome) for name in reads))
    return Objective("made up", "a test", reward, reads=reads)


@pytest.fixture
def brought(monkeypatch):
    """Register an objective, and return its name."""

    def bring(*reads, reward=None):
        monkeypatch.setitem(registry.OBJECTIVES, "mine", objective(*reads, reward=reward))
        return "mine"

    return bring


def outcome_of(name, at_step=7):
    settings = dataclasses.replace(tiny.rlp_settings(thought_length=LIMIT), objective=name)
    method = (CONFIG, settings, WORDS)
    forked = step.read_stage(*method, PARAMS, PARAMS, BATCH, KEY, at_step)
    rollout = step.rollout_stage(*method, PARAMS, forked)
    no_think = step.no_think_stage(*method, PARAMS, None, BATCH, forked)
    actual, _ = step.outcome_of(*method, PARAMS, forked, rollout, no_think.baseline)
    return actual, rollout


def test_tokens_of_thoughts_and_the_step_are_those_of_the_rollout(brought):
    actual, rollout = outcome_of(brought("thought_tokens", "step"))
    assert actual.thought_tokens.shape == (2, 2, GROUP, LIMIT)
    assert np.array_equal(actual.thought_tokens.reshape(2, -1, LIMIT), rollout.thoughts.actions)
    assert actual.step == 7
    assert set(actual.readings) == {"thought_tokens", "step"}


def test_what_is_not_declared_is_neither_computed_nor_read(brought):
    actual, _ = outcome_of(brought())
    assert actual.readings == {}
    with pytest.raises(UserError) as refused:
        actual.elsewhere  # noqa: B018
    assert "objective='mine' reads outcome.elsewhere" in str(refused.value)
    assert 'add reads=("elsewhere",)' in str(refused.value)


def test_an_unknown_reading_is_refused_with_the_nearest(brought):
    with pytest.raises(UserError, match="reading 'thought_token'; did you mean thought_tokens"):
        readings.check(brought("thought_token"))


def test_readings_of_text_and_of_answers_are_not_for_one_objective(brought):
    with pytest.raises(UserError, match="reads answers and elsewhere"):
        readings.check(brought("answers", "elsewhere"))


@pytest.mark.parametrize("name", registry.OBJECTIVES)
def test_our_objectives_declare_what_exists(name):
    readings.check(name)


def test_a_reading_costs_the_pass_that_it_declares(brought):
    def scoring(*reads):
        settings = dataclasses.replace(tiny.rlp_settings(), objective=brought(*reads))
        return flops.rlp_flops(CONFIG, settings, WORDS, 0, 4, 12, 64)["evidence"]["scoring"]

    assert scoring("thought_tokens", "step", "entropy") == scoring()
    assert scoring("elsewhere") == 2 * scoring()
    assert scoring("in_another") > 2 * scoring()
