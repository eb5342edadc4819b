"""Tokens are ranked as in the whole distribution, however they are batched."""

import jax
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.engine.method import Method
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.token_ranks import rank_tokens
from rlp.runtime.errors import UserError
from tests.support import naive, tiny

CONFIG = tiny.model_config()
WIDTH = 160  # tokens of a row of the full forward passes


def scorer(**changes) -> OptionScorer:
    method = Method(CONFIG, tiny.rlp_settings(prompt=()), tiny.words(CONFIG))
    mesh = make_mesh(devices=jax.devices()[:1])
    return OptionScorer(method, tiny.params(CONFIG, 4), mesh, **changes)


def ids(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 22, count).tolist()


@pytest.mark.parametrize("top", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_ranked_tokens_are_those_of_the_whole_distribution(top):
    rows = [ids(n, n) for n in (2, 9, 40, 65)]
    table = np.zeros((len(rows), WIDTH), np.int32)
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    size = np.array(list(map(len, rows)), np.int32)
    params = tiny.params(CONFIG, 4)
    expected = np.array(naive.predictions(params, table, size, config=CONFIG, banned=()))
    results = rank_tokens(scorer(context=64, batch_tokens=128), rows, top)
    for row, logprobs, found in zip(rows, expected, results, strict=True):
        logprobs = logprobs[: len(row) - 1]
        chosen = logprobs[np.arange(len(row) - 1), row[1:]]
        assert found.logprobs == pytest.approx(chosen, abs=1e-4)
        order = np.argsort(-logprobs, axis=-1)[:, :top]
        assert (found.likeliest == order).all()
        best = np.take_along_axis(logprobs, order, axis=-1)
        assert found.top_logprobs == pytest.approx(best, abs=1e-4)
        greedy = found.likeliest[:, 0] == row[1:]
        assert (found.top_logprobs[:, 0] == found.logprobs)[greedy].all()  # the same bits
    with pytest.raises(UserError, match="row 1 has 66 tokens"):
        rank_tokens(scorer(context=64), [ids(1, 65), ids(1, 66)], top)
