"""Outcomes of thoughts that are small enough to compute rewards by hand."""

import math

import jax.numpy as jnp

from rlp.objectives import Outcome
from rlp.objectives.outcome import Answers

THOUGHTS = [[-0.5, -1.0], [-2.0, -0.25], [-3.0, -3.0]]  # log p of two target tokens after each
WITHOUT = [-1.0, -1.5]
NONE = math.nan  # a missing confidence


def answers(correct, agrees=None, confidence=None):
    """Return the answers of one group."""
    array = lambda x, dtype: jnp.asarray([[x]], dtype)
    agrees = correct if agrees is None else agrees
    confidence = [NONE] * len(correct) if confidence is None else confidence
    ones = array([1] * len(correct), bool)
    return Answers(
        correct=array(correct, bool),
        reward=array(correct, jnp.float32),
        agrees=array(agrees, bool),
        confidence=array(confidence, jnp.float32),
        given=ones,
        failed=~ones,
    )


def outcome(**changes):
    """Return an outcome of one document with one fork, three thoughts and two target tokens."""
    logprobs = jnp.array([[THOUGHTS]])
    fields = {
        "reasoned": logprobs.sum(-1),
        "baseline": jnp.array([[sum(WITHOUT)]]),
        "logprobs": logprobs,
        "baseline_logprobs": jnp.array([[WITHOUT]]),
        "present": jnp.ones((1, 1, 2), bool),
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
