"""Settings, a batch and a rollout that the tests of the engine share."""

import dataclasses
import functools

import jax
import pytest

from models import backend
from rlp.engine import decoding, step
from rlp.engine.optimizer import make_optimizer
from tests.support import tiny

CONFIG = tiny.model_config()
SMALL = tiny.model_config(num_layers=1)  # compiles faster, where one layer tells as much
WORDS = tiny.words(CONFIG)
PARAMS = functools.partial(tiny.params, seed=4)  # closes a fifth of its thoughts
BATCH = tiny.documents(0, [12, 16, 9, 14], 16, 22, forks=2)
KEY = jax.random.key(3)
PROMPT = (14, 5, 16)
# With a small epsilon, Adam's first move is the sign of the gradient, whatever its rounding.
OPTIMIZER = make_optimizer(
    learning_rate=1.0, schedule="constant", warmup_steps=0, final_share=1.0, total_steps=10,
    beta1=0.9, beta2=0.95, epsilon=1.0, weight_decay=0.0, clip_norm=0.0,
)  # fmt: skip
slow = pytest.mark.slow


def phi(config):
    """Parameters of a baseline: those of the policy, changed."""
    return jax.tree.map(lambda x: 0.7 * x, PARAMS(config))


SETTINGS = tiny.rlp_settings()  # 4 documents, 2 forks each, 4 thoughts each
LONG = tiny.rlp_settings(thought_length=12)
ALL = dataclasses.replace(
    SETTINGS, next_token_weight=0.5, target_weight=0.3, kl_weight=0.1, update_micro_batch=4
)


@functools.cache
def rolled(config, settings, divisors, choices=backend.CPU, words=WORDS):
    """A rollout whose decoding goes on with these shares of a document's branches."""
    method = (config, settings, words)

    def run(params):
        reading = step.read_stage(*method, params, params, BATCH, KEY, 5)
        return step.rollout_stage(*method, params, reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MIN_ROWS", 1)
        patch.setattr(backend, "CPU", dataclasses.replace(choices, decode_divisors=divisors))
        return jax.device_get(tiny.jit(run)(PARAMS(config)))
