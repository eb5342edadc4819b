"""Settings, a batch and a rollout for the tests of the engine."""

import dataclasses
import functools

import jax
import pytest

from models import backend
from rlp.engine import decoding, step
from rlp.engine.optimizer import make_optimizer
from tests.support import tiny

CONFIG = tiny.model_config()
SMALL = tiny.model_config(num_layers=1)  # compiles faster, for tests that need only one layer
WORDS = tiny.words(CONFIG)
PARAMS = functools.partial(tiny.params, seed=4)  # a fifth of the sampled thoughts are closed
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)
PROMPT = (14, 5, 16)
# With a small epsilon, Adam's first update would be the sign of the gradient, which rounding can
# flip.
OPTIMIZER = make_optimizer(
    learning_rate=1.0, schedule="constant", warmup_steps=0, final_share=1.0, total_steps=10,
    beta1=0.9, beta2=0.95, epsilon=1.0, weight_decay=0.0, clip_norm=0.0,
)  # fmt: skip
slow = pytest.mark.slow


def phi(config):
    """Return parameters of a baseline that differ from those of the policy."""
    return jax.tree.map(lambda x: 0.7 * x, PARAMS(config))


SETTINGS = tiny.rlp_settings()  # 4 documents, 2 forks each, 4 thoughts each
LONG = tiny.rlp_settings(thought_length=12)
ALL = dataclasses.replace(
    SETTINGS, next_token_weight=0.5, target_weight=0.3, kl_weight=0.1, update_micro_batch=4
)


@functools.cache
def rolled(config, settings, divisors, choices=backend.CPU, words=WORDS):
    """Return a rollout that decodes with `decode_divisors` set to these divisors."""
    method = (config, settings, words)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        return step.rollout_stage(*method, params, reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MIN_ROWS", 1)
        patch.setattr(backend, "CPU", dataclasses.replace(choices, decode_divisors=divisors))
        return jax.device_get(tiny.jit(run)(PARAMS(config)))
