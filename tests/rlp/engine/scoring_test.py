"""Log-probabilities equal those of a plain softmax, in chunks or not, at the right tokens."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import backend
from models.transformer import bind
from models.tree import Trunk, forward
from rlp.engine.branches import Forks
from rlp.engine.scoring import (
    document_scores,
    logit_chunks,
    no_think_scores,
    predicted_tokens,
    token_scores,
)
from tests.support import naive, tiny
from tests.support.tiny import CLOSE

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
MODEL = functools.partial(lambda: bind(CONFIG, tiny.params(CONFIG)))


def hidden_and_targets(count: int = 15):
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.normal(size=(3, count // 3, CONFIG.hidden_size)), jnp.float32)
    return hidden, jnp.asarray(random.integers(5, 22, (3, count // 3)))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_the_masked_softmax(temperature):
    hidden, targets = hidden_and_targets()
    first = jnp.arange(5)[None, :] == 0
    banned = WORDS.not_in_thoughts
    actual = tiny.jit(token_scores, static_argnums=(3, 4, 5))(
        MODEL(), hidden, targets, banned, temperature, CLOSE, first
    )
    logits = np.asarray(MODEL().logits(hidden), np.float64) / temperature
    for row, place in np.ndindex(3, 5):
        gone = [*banned, CLOSE] if place == 0 else list(banned)
        left = [i for i in range(24) if i not in gone]
        weights = np.exp(logits[row, place, left])
        p = dict(zip(left, weights / weights.sum(), strict=True))
        target = int(targets[row, place])
        assert actual.logprob[row, place] == pytest.approx(np.log(p[target]), abs=1e-5)
        entropy = -sum(x * np.log(x) for x in p.values())
        assert actual.entropy[row, place] == pytest.approx(entropy, abs=1e-5)
        assert actual.likeliest[row, place] == max(p, key=p.get)


@pytest.mark.parametrize("limit", [24 * 15, 24 * 4, 24])
def test_chunks_change_nothing(monkeypatch, limit):
    """Values and gradients, for a count of tokens that the chunks divide and for another."""
    hidden, targets = hidden_and_targets()

    def run(params, hidden):
        scores = token_scores(bind(CONFIG, params), hidden, targets, WORDS.not_in_documents)
        return (scores.logprob * jnp.arange(1.0, 6)[None, :]).sum(), scores

    step = lambda: tiny.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))(
        tiny.params(CONFIG), hidden
    )
    expected = step()
    limits = dataclasses.replace(backend.CPU, logits=limit, kept_logits=limit)
    monkeypatch.setattr(backend, "CPU", limits)
    assert logit_chunks(15, 24) == {360: 1, 96: 4, 24: 15}[limit]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), step(), expected
    )


def test_entropy_carries_no_gradient():
    hidden, targets = hidden_and_targets()
    loss = lambda h: token_scores(MODEL(), h, targets, WORDS.not_in_documents, 0.9).entropy.sum()
    assert not tiny.jit(jax.grad(loss))(hidden).any()


def test_documents_are_scored_inside_their_own_borders():
    rows = tiny.documents(3, [9, 6], 12, 22)
    two = Trunk(  # both documents in one row, and padding
        tokens=np.concatenate([rows.tokens[0, :9], rows.tokens[1, :6], [0]])[None],
        segment=np.array([[1] * 9 + [2] * 6 + [0]]),
        position=np.array([[*range(9), *range(6), 0]]),
    )
    two = jax.tree.map(jnp.asarray, two)
    actual = tiny.jit(document_scores, static_argnums=2)(MODEL(), two, WORDS)
    expected = np.zeros(16)
    for start, row, length in ((0, 0, 9), (9, 1, 6)):
        text = rows.tokens[row : row + 1, :length]
        expected[start + 1 : start + length] = naive.document_logprobs(
            tiny.params(CONFIG), text, config=CONFIG, vocabulary=WORDS
        )[0]
    np.testing.assert_allclose(actual.logprob[0], expected, atol=1e-5)
    assert np.array_equal(predicted_tokens(two)[0], expected != 0)
    assert (np.asarray(actual.entropy[0] > 0) == (expected != 0)).all()


def test_no_think_scores_are_those_of_the_document():
    batch = tiny.documents(4, [12, 12], 12, 22)
    trunk = jax.tree.map(jnp.asarray, Trunk(batch.tokens, batch.segment, batch.position))
    whole = naive.document_logprobs(
        tiny.params(CONFIG), batch.tokens, config=CONFIG, vocabulary=WORDS
    )
    fork = np.array([[1, 5, 9], [2, 8, 9]])
    place = fork[:, :, None] + np.arange(3)
    target = jnp.asarray(batch.tokens[np.arange(2)[:, None, None], place])
    run = tiny.jit(lambda t, forks: no_think_scores(MODEL(), forward(MODEL(), t), forks, WORDS))
    actual = run(trunk, Forks(jnp.asarray(fork), target, jnp.ones(target.shape, bool)))
    expected = np.asarray(whole)[np.arange(2)[:, None, None], place - 1]
    np.testing.assert_allclose(actual.logprob, expected, atol=1e-5)
