"""The loss of documents and its gradient, computed together, are those of `token_scores`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.transformer import bind
from models.tree import forward
from rlp.engine.branches import document_trunk
from rlp.engine.scoring import document_scores, in_chunks, loss_tokens
from rlp.engine.text_loss import text_loss
from tests.support import tiny
from tests.support.engine import BATCH, CONFIG


@pytest.mark.parametrize("logits", [2**22, 2**8], ids=["one chunk", "many chunks"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": not CONFIG.tie_embeddings},
        {"logit_softcap": 0.5, "compute_dtype": "bfloat16"},
    ],
    ids=["default", "other head", "softcap in bfloat16"],
)
def test_loss_and_gradient_are_those_of_the_scores(changes, logits, monkeypatch):
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, logits=logits))
    config = dataclasses.replace(CONFIG, **changes)
    params, trunk = tiny.params(config), document_trunk(BATCH)
    weights = loss_tokens(trunk, None) * jnp.linspace(0.5, 2.0, BATCH.tokens.shape[1])[None]

    def together(params):
        model = bind(config, params)
        return 3.0 * text_loss(model, trunk, forward(model, trunk), weights)

    def from_scores(params):
        return -3.0 * jnp.sum(document_scores(bind(config, params), trunk).logprob * weights)

    loss, gradient = tiny.jit(jax.value_and_grad(together))(params)
    expected, expected_gradient = tiny.jit(jax.value_and_grad(from_scores))(params)
    assert tiny.jit(together)(params) == pytest.approx(float(loss), rel=1e-6)
    assert loss == pytest.approx(float(expected), rel=1e-6)
    limit = 1e-5 if config.dtype == jnp.float32 else 2e-2
    assert tiny.relative_error(gradient, expected_gradient) < limit


def test_chunks_are_the_tokens_in_order_and_padding(monkeypatch):
    monkeypatch.setattr(backend, "CPU", dataclasses.replace(backend.CPU, logits=2 * 4 * 10))
    x = np.arange(2 * 10).reshape(2, 10) + 1
    chunks = np.asarray(in_chunks(10, x))
    assert chunks.shape == (3, 2, 4)  # 2 rows of 4 tokens have 80 logits
    whole = chunks.swapaxes(0, 1).reshape(2, -1)
    np.testing.assert_array_equal(whole[:, :10], x)
    assert not whole[:, 10:].any()
