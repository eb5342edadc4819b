"""In float64, branches with their trunk equal plain rows to 1e-10, so what is left in float32 is
rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import config as model_config
from models.paths import by_name
from tests.support import tiny, trees
from tests.support.trees import B, N, W

RECURRENT = {
    "qk_norm": "none", "activation": "relu2", "mamba_heads": 4, "mamba_head_dim": 6,
    "mamba_groups": 2, "mamba_state": 5, "delta_heads": 4, "delta_head_dim": 6,
    "delta_key_heads": 2, "delta_key_dim": 5,
}  # fmt: skip


@pytest.fixture
def _float64(monkeypatch):
    """Compute everything in float64 that is computed in float32."""
    with jax.enable_x64(True):
        monkeypatch.setattr(jnp, "float32", jnp.float64)
        monkeypatch.setitem(model_config.COMPUTE_DTYPES, "float32", jnp.float64)
        yield


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("pattern", ["M*-", "DG"])
def test_hidden_states_and_gradients_are_those_of_plain_rows(pattern):
    shape = {"vocab_size": 40, "num_layers": len(pattern), "layer_pattern": pattern}
    config = tiny.model_config(**shape, **RECURRENT)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny.params(config, scale=5.0))
    trunk, branches = trees.random_tree(3)
    rows = trees.alone(trunk, branches)
    live = np.asarray(branches.live)
    hidden = trees.packed(params, trunk, branches, config=config)
    expected = trees.plain(params, *rows, config=config)
    assert hidden.dtype == np.float64
    np.testing.assert_allclose(hidden[live], expected[live], rtol=1e-10, atol=1e-10)
    cotangent = np.random.default_rng(0).normal(size=(B, N, W, config.hidden_size))
    actual = by_name(trees.packed_gradient(params, trunk, branches, cotangent, config=config))
    wanted = by_name(trees.plain_gradient(params, rows, live, cotangent, config=config))
    for name, leaf in wanted.items():
        error = np.linalg.norm(np.ravel(actual[name] - leaf))
        assert error <= 1e-10 * np.linalg.norm(np.ravel(leaf)), name
