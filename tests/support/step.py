"""Run the stages of an RLP step on a small batch."""

import jax
import jax.numpy as jnp

from tests.support import tiny

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
PARAMS = tiny.params(CONFIG, 4)  # a fifth of the sampled thoughts are closed
PHI = tiny.params(CONFIG, 1)
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)
SETTINGS = tiny.rlp_settings()


def run(settings, phi, batch=BATCH, words=WORDS):
    """Return the rollout, the forks and the evidence."""
    rollout_stage = tiny.rollout_stage(CONFIG, settings, words)
    rollout, reading = rollout_stage(PARAMS, PARAMS, batch, KEY, jnp.int32(5))
    evidence = tiny.evidence_stage(CONFIG, settings, words)(PARAMS, phi, batch, rollout, reading)
    return rollout, reading.forks, evidence
