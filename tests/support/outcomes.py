"""Outcomes of thoughts, small enough to be rewarded by hand."""

import math

import jax.numpy as jnp

from rlp.objectives import Outcome
from rlp.objectives.outcome import Answers

THOUGHTS = [[-0.5, -1.0], [-2.0, -0.25], [-3.0, -3.0]]  # log p of two target tokens after each
WITHOUT = [-1.0, -1.5]
NONE = math.nan  # of a confidence


def answers(correct, agrees=None, confidence=None):
    """Of one group."""
    each = lambda x, dtype: jnp.asarray([[x]], dtype)
    agrees = correct if agrees is None else agrees
    confidence = [NONE] * len(correct) if confidence is None else confidence
    whole = each([1] * len(correct), bool)
    return Answers(
        correct=each(correct, bool),
        reward=each(correct, jnp.float32),
        agrees=each(agrees, bool),
        confidence=each(confidence, jnp.float32),
        given=whole,
        failed=~whole,
    )


def outcome(**changes):
    """One document, one fork, three thoughts, two target tokens."""
    logprobs = jnp.array([[THOUGHTS]])
    fields = {
        "reasoned": logprobs.sum(-1),
        "baseline": jnp.array([[sum(WITHOUT)]]),
        "logprobs": logprobs,
        "baseline_logprobs": jnp.array([[WITHOUT]]),
        "closed": jnp.array([[[True, True, False]]]),
        "length": jnp.array([[[1, 3, 8]]]),
        "uniform": jnp.array([[[0.7, 0.1, 0.4]]]),
        "limit": 8,
        "readings": {
            "matches": jnp.array([[[True, False, True]]]),
            "elsewhere": jnp.array([[[-1.0, -2.0, -4.0]]]),
            "in_another": jnp.array([[[-3.0, -0.5, -2.0]]]),
            "answers": answers([1, 0, 0], [0, 1, 1], [0.75, 0.5, NONE]),
        },
    }
    return Outcome(**(fields | changes))
