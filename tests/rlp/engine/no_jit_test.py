"""A step without jit, for print and pdb, gives the metrics of the jitted step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import debug
from configs.default import Config
from models import transformer
from rlp.data.rows import Rows
from rlp.run import assembly
from rlp.run.schedule import build_optimizer
from rlp.run.state import StateMaker
from rlp.runtime.config_json import Value

SMALL: dict[str, Value] = {"batch_size": 2, "rlp.group_size": 2, "rlp.thought_length": 2}
# Splits of the batch and remat, whose steps are compared with the whole one elsewhere, would double
# the time.
WITH_KL: dict[str, Value] = {"rlp.minibatches": 2, "rlp.kl_weight": 0.1}


def step(objective, disable_jit=False, **changes):
    """Return parameters and metrics after a step of configs/debug.py, on one device."""
    config = debug.get_config(objective)
    config.update_from_flattened_dict(SMALL | changes)
    settings = Config.of(config)
    run = assembly.build(settings, None, jax.devices()[:1])
    train, _ = assembly.read_data(settings, run)
    optimizer = build_optimizer(settings, settings.steps)
    states = StateMaker(settings, run, optimizer)
    init_key, key, _ = assembly.root_keys(settings.seed)
    state = states.initial(None, init_key)
    trainer = run.task.trainer(run, train, optimizer, states.shardings)
    rows = Rows(settings.batch_size, train.batch)
    with jax.disable_jit(disable_jit):
        state, metrics, _ = trainer.step(state, rows, key)
    return jax.device_get(state.params), metrics


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("next_token", {}),
        pytest.param("rlp", WITH_KL, marks=pytest.mark.slow, id="rlp in minibatches with KL"),
    ],
)
def test_a_step_without_jit_has_the_metrics_of_the_jitted_one(objective, changes):
    params, metrics = step(objective, **changes)
    eager_params, eager_metrics = step(objective, disable_jit=True, **changes)
    assert eager_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    # A tenth of the learning rate: the first step of Adam magnifies rounding in small gradients.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    jax.tree.map(close, eager_params, params)


def test_values_can_be_printed_without_jit(monkeypatch, capsys):
    """Stages see numbers, not tracers, as with JAX_DISABLE_JIT=1."""
    embed = transformer.Transformer.embed

    def shown(self, tokens):
        print("largest token", int(jnp.max(tokens)))
        return embed(self, tokens)

    monkeypatch.setattr(transformer.Transformer, "embed", shown)
    step("next_token", disable_jit=True)
    assert "largest token " in capsys.readouterr().out
