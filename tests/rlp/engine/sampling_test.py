"""Truncated sampling equals a reference that sorts, and draws follow the truncated distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mask import HIDDEN_SCORE
from rlp.engine.sampling import Sampler, likeliest, sample, truncation
from tests.support import tiny

ROWS = 4
SIZES = (1, 7, 128, 300)  # 300 and 7 are no multiples of a block of two-level sampling
SETTINGS = settings(max_examples=60, deadline=None)
truncate = tiny.jit(truncation)
draw = tiny.jit(sample)


def sorted_reference(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """Return which tokens of a row are kept, by sorting; exact but for sums in float64."""
    gaps = logits.max() - logits.astype(np.float64)  # different logits have different gaps
    kept = np.ones(len(gaps), bool)
    if top_k:
        kept = gaps <= np.sort(gaps)[min(top_k, len(gaps)) - 1]
    if top_p < 1:
        weights = np.where(kept, np.exp(-gaps), 0)
        order = np.argsort(gaps, kind="stable")
        mass = np.cumsum(weights[order])
        last = order[np.searchsorted(mass, top_p * mass[-1])]
        kept &= gaps <= gaps[last]
    return kept


def assert_is_reference(actual: np.ndarray, logits: np.ndarray, top_k: int, top_p: float) -> None:
    """A mass within float32 rounding of p may fall on either side of it, and no other one."""
    fewest = sorted_reference(logits, top_k, top_p * (1 - 1e-5))
    most = sorted_reference(logits, top_k, min(top_p * (1 + 1e-5), 1.0))
    assert np.all(fewest <= actual)
    assert np.all(actual <= most)


# Steps of 1/2 give many ties, and tiny ones probabilities that are nearly equal.
LOGIT = st.one_of(
    *[st.integers(-40, 40).map(lambda x, step=step: x * step) for step in (0.5, 2**-20)],
    st.integers(-(2**20), 2**20).map(lambda x: x / 2**15),
    st.just(float(HIDDEN_SCORE)),
)
TOP_P = st.one_of(st.just(1.0), st.just(1e-9), st.integers(1, 2**10).map(lambda x: x / 2**10))


@SETTINGS
@given(st.data())
def test_what_is_kept_is_what_sorting_keeps(data):
    size = data.draw(st.sampled_from(SIZES))
    row = st.lists(LOGIT, min_size=size, max_size=size).filter(lambda x: max(x) > HIDDEN_SCORE)
    few = data.draw(st.lists(row, min_size=1, max_size=2))
    logits = np.array((few * ROWS)[:ROWS], np.float32)
    top_k = data.draw(st.lists(st.integers(0, size + 2), min_size=ROWS, max_size=ROWS))
    top_p = data.draw(st.lists(TOP_P, min_size=ROWS, max_size=ROWS))
    numbers = jnp.asarray(top_k, jnp.int32), jnp.asarray(top_p, jnp.float32)
    both, only_k, only_p = (
        np.asarray(truncate(logits, k, p))
        for k, p in (numbers, (numbers[0], None), (None, numbers[1]))
    )
    for n in range(ROWS):
        assert np.array_equal(only_k[n], sorted_reference(logits[n], top_k[n], 1.0))
        assert_is_reference(only_p[n], logits[n], 0, top_p[n])
        assert_is_reference(both[n], logits[n], top_k[n], top_p[n])


@pytest.mark.parametrize("size", [1000, 50_000])
def test_a_large_vocabulary_is_truncated_as_by_sorting(size):
    logits = np.random.default_rng(size).normal(0, 3, (6, size)).astype(np.float32)
    top_k, top_p = [0, 50, 0, 50, 1, size], [1.0, 1.0, 0.9, 0.95, 0.3, 0.999]
    kept = truncate(logits, jnp.asarray(top_k), jnp.asarray(top_p, jnp.float32))
    counts = np.asarray(kept).sum(axis=-1)
    assert counts[0] == size
    assert counts[1] == 50
    assert counts[4] == 1
    assert 1 < counts[3] < 50
    assert 1 < counts[2] < counts[5] < size
    for row in range(6):
        assert_is_reference(np.asarray(kept)[row], logits[row], top_k[row], top_p[row])


def test_equally_likely_tokens_are_kept_together():
    """Probabilities 0.4, 0.2, 0.2, 0.2, and a banned token."""
    logits = np.log(np.array([[0.2, 0.4, 0.2, 0.2, 1.0]], np.float32))
    logits[:, 4] = HIDDEN_SCORE
    kept = lambda k, p: np.asarray(truncate(logits, jnp.array([k]), jnp.array([p])))[0].tolist()
    assert kept(1, 1.0) == kept(0, 1e-9) == kept(3, 0.39) == [0, 1, 0, 0, 0]
    assert kept(2, 1.0) == kept(0, 0.41) == kept(2, 0.99) == [1, 1, 1, 1, 0]
    assert kept(0, 1.0) == kept(5, 1.0) == [1, 1, 1, 1, 1]  # nothing draws the banned one


@pytest.mark.parametrize("size", SIZES)
def test_a_draw_is_the_place_of_its_number_among_the_kept(size):
    """Inverse CDF over the kept tokens, and log-probabilities of the whole distribution."""
    random = np.random.default_rng(size)
    logits = random.normal(0, 2, (200, size)).astype(np.float32)
    logits[:, ::3] = np.where(random.random(logits[:, ::3].shape) < 0.5, HIDDEN_SCORE, 1.0)
    logits[:, size // 2] = 0.5
    uniform = random.random(200).astype(np.float32)
    uniform[:2] = 0, np.nextafter(np.float32(1), np.float32(0))
    kept = truncate(logits, jnp.full(200, size // 3 + 1), jnp.full(200, 0.8))
    token, logprob = jax.tree.map(np.asarray, draw(logits, uniform, kept))
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    inside = np.where(kept, weights, 0)
    mass = np.cumsum(inside, axis=-1) / inside.sum(axis=-1, keepdims=True)
    rows = np.arange(200)
    share = inside[rows, token] / inside.sum(axis=-1)
    assert np.all(share > 0)
    assert np.all(mass[rows, token] - share - 1e-5 <= uniform)
    assert np.all(uniform <= mass[rows, token] + 1e-5)
    expected = np.log(weights[rows, token] / weights.sum(axis=-1))
    np.testing.assert_allclose(logprob, expected, atol=1e-5)


def test_tokens_are_drawn_as_often_as_the_truncated_softmax_says():
    """Rows of one batch have settings of their own."""
    count, size = 4000, 40
    logits = np.random.default_rng(0).normal(0, 1.5, size).astype(np.float32)
    cases = [(1.0, 0, 1.0), (2.0, 0, 0.7), (0.5, 5, 1.0), (1.5, 12, 0.8), (0.0, 0, 1.0)]
    temperature, top_k, top_p = (np.repeat(np.array(x), count) for x in zip(*cases, strict=True))
    sampler = Sampler(
        jnp.asarray(temperature, jnp.float32), jnp.asarray(top_k), jnp.asarray(top_p, jnp.float32)
    )
    uniform = jax.random.uniform(jax.random.key(0), (len(cases) * count,))

    def choose(sampler, uniform):
        return sampler.choose(jnp.asarray(logits)[None, :] / sampler.divisor, uniform)

    tokens, logprobs = jax.tree.map(np.asarray, tiny.jit(choose)(sampler, uniform))
    for (heat, k, p), drawn, logprob in zip(
        cases, np.split(tokens, len(cases)), np.split(logprobs, len(cases)), strict=True
    ):
        table = logits.astype(np.float64) / (heat or 1)
        table -= np.log(np.exp(table).sum())
        np.testing.assert_allclose(logprob, table[drawn], atol=1e-5)
        if not heat:
            assert set(drawn) == {logits.argmax()}
            continue
        kept = sorted_reference((logits / np.float32(heat)), k, p)
        expected = np.where(kept, np.exp(table), 0)
        expected /= expected.sum()
        shares = np.bincount(drawn, minlength=size) / count
        # Within five standard deviations, and no token that is not kept.
        assert np.all(np.abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / count))


def test_settings_that_keep_everything_change_no_bit():
    logits = np.random.default_rng(1).normal(0, 2, (50, 300)).astype(np.float32)
    uniform = np.random.default_rng(2).random(50).astype(np.float32)
    everything = Sampler(jnp.ones(50), jnp.zeros(50, jnp.int32), jnp.ones(50))
    plain, best = draw(logits, uniform), tiny.jit(likeliest)(logits)
    kept = tiny.jit(Sampler.choose)(everything, logits, uniform)
    jax.tree.map(np.testing.assert_array_equal, kept[0], plain[0])
    np.testing.assert_allclose(kept[1], plain[1], atol=1e-6)
    greedy = tiny.jit(Sampler.choose)(Sampler(jnp.zeros(50)), logits, uniform)
    jax.tree.map(np.testing.assert_array_equal, greedy, best)


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("places", [[7], [299], slice(None)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_a_token_and_a_log_probability_that_is_not(
    value, places, truncated
):
    logits = np.zeros((3, 300), np.float32)
    logits[:, places] = value
    cuts = (jnp.array([3] * 3), jnp.array([0.5] * 3)) if truncated else (None, None)
    uniform = np.array([0, 0.5, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    token, logprob = tiny.jit(Sampler.choose)(Sampler(jnp.ones(3), *cuts), logits, uniform)
    assert np.all((token >= 0) & (token < 300))
    if np.isnan(value) and not truncated:
        assert not token.any()  # rows beyond the tokenizer's vocabulary have no text
    if not (value < 0 and places != slice(None)):  # one token of probability 0 is not an error
        assert np.all(np.isnan(logprob))
