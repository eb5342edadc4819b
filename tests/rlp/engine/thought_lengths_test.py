"""The minimum length of thoughts, and the schedule of the maximum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlp.engine.stages import sample_thoughts
from tests.support import naive, tiny
from tests.support.step import BATCH, CONFIG, KEY, PARAMS, SETTINGS, WORDS

TAGS = tiny.words(CONFIG, think_open=(7, 8), think_close=(4, 4))  # likely under the parameters
LONG = tiny.rlp_settings(group_size=6, thought_length=6)
LEAST = 3
SCHEDULE = ((0, 2), (4, 3), (9, 6))


def thoughts_of(settings, words=WORDS, step=5):
    stage = tiny.rollout_stage(CONFIG, settings, words)
    rollout, reading = stage(PARAMS, PARAMS, BATCH, KEY, jnp.int32(step))
    return rollout, reading.forks


@pytest.mark.parametrize("words", [WORDS, TAGS], ids=["", "tags of two"])
def test_with_a_minimum_sampler_and_trainer_have_the_same_restricted_distribution(words):
    """Also the distribution that is written out by hand; and no thought closes early."""
    settings = dataclasses.replace(LONG, min_thought_length=LEAST)
    rollout, forks = thoughts_of(settings, words)
    t = jax.tree.map(np.asarray, rollout.thoughts)
    spoken = np.asarray(rollout.thoughts.words(words))
    assert (spoken >= LEAST).all()
    assert (spoken[t.closed] == LEAST).any()
    free = thoughts_of(LONG, words)[0].thoughts
    assert (np.asarray(free.words(words)) < LEAST).any()  # without a minimum, thoughts are shorter

    branches = [
        naive.Branch(
            BATCH.tokens[b].tolist(),
            int(forks.position[b, n // settings.group_size]),
            t.actions[b, n, : t.length[b, n]].tolist(),
            settings.horizon,
        )
        for b, n in np.ndindex(*t.length.shape)
    ]
    rows = naive.write_out(branches, words, settings.thought_length, 30, least=LEAST)
    by_hand = naive.action_logprobs(
        PARAMS, rows, config=CONFIG, vocabulary=words, temperature=settings.temperature
    )
    by_hand = np.asarray(by_hand).reshape(t.logprobs.shape)
    np.testing.assert_allclose(t.logprobs, by_hand, atol=1e-4)
    ones = np.ones(t.length.shape)
    gap = lambda settings: tiny.policy_gradient(CONFIG, settings, words)(
        PARAMS, rollout, ones, ones > 0
    )[0][1]["logprob_gap"]
    assert gap(settings) < 1e-5
    assert gap(LONG) > 1e-3  # the test would notice a trainer without the minimum


def test_a_scheduled_thought_is_the_beginning_of_an_unscheduled_one():
    """One program serves all steps, and the limit depends on the step alone, as after a resume."""
    settings = dataclasses.replace(LONG, thought_length_schedule=SCHEDULE)
    stage = tiny.rollout_stage(CONFIG, settings, WORDS)
    for step, limit in ((0, 2), (3, 2), (4, 3), (8, 3), (9, 6), (1000, 6)):
        whole = jax.tree.map(np.asarray, thoughts_of(LONG, step=step)[0].thoughts)
        rollout, _ = stage(PARAMS, PARAMS, BATCH, KEY, jnp.int32(step))
        t = jax.tree.map(np.asarray, rollout.thoughts)
        kept = np.arange(LONG.thought_length) < limit
        assert np.array_equal(t.actions, np.where(kept, whole.actions, tiny.PAD))
        np.testing.assert_allclose(t.logprobs, np.where(kept, whole.logprobs, 0), atol=1e-6)
        assert np.array_equal(t.length, np.minimum(whole.length, limit))
        assert np.array_equal(t.closed, whole.closed & (whole.length <= limit))
        assert int(rollout.decoded) <= limit * t.length.size
        assert (t.length == limit).any()
    assert stage._cache_size() == 1


def test_held_out_thoughts_have_the_whole_length():
    """The schedule is one of training, so that held-out metrics can be compared between steps."""
    sample = tiny.jit(
        lambda settings: sample_thoughts(CONFIG, settings, WORDS, PARAMS, BATCH, KEY)[1].thoughts,
        static_argnums=0,
    )
    scheduled = sample(dataclasses.replace(LONG, thought_length_schedule=SCHEDULE))
    assert np.array_equal(scheduled.actions, sample(LONG).actions)
    assert (np.asarray(scheduled.length) == LONG.thought_length).any()


def test_responses_to_problems_have_their_own_limits():
    from rlp.evaluation.answering import response_settings

    changes = {"min_thought_length": LEAST, "thought_length_schedule": SCHEDULE}
    made = response_settings(dataclasses.replace(SETTINGS, **changes), 9)
    assert made == response_settings(SETTINGS, 9)
    assert made.thought_limit(0) == 9
