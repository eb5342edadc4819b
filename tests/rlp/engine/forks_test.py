"""Forks are in range, distinct, and distributed as their rule specifies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.engine.forks import select_forks, target_losses

LIMIT = 20


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def select(rule, length, count, *, seed=0, min_prefix=1, horizon=1, **more):
    length = jnp.asarray(length)
    actual = select_forks(
        rule,
        keys(len(length), seed),
        length,
        count,
        limit=LIMIT,
        min_prefix=min_prefix,
        horizon=horizon,
        **more,
    )
    return np.asarray(actual)


@settings(deadline=None, max_examples=40)  # the first example compiles
@given(
    rule=st.sampled_from(["uniform", "stride", "loss", "entropy", "easy_to_hard"]),
    count=st.integers(1, 4),
    min_prefix=st.integers(1, 4),
    horizon=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_forks_are_in_range_distinct_and_sorted(rule, count, min_prefix, horizon, seed):
    random = np.random.default_rng(seed)
    shortest = min_prefix + horizon + count - 1
    length = np.append(random.integers(shortest, LIMIT + 1, 30), shortest)
    scores = jnp.asarray(random.random((31, LIMIT)), jnp.float32)
    forks = select(
        rule, length, count, seed=seed, min_prefix=min_prefix, horizon=horizon, scores=scores
    )
    assert forks.shape == (31, count)
    assert forks.dtype == np.int32
    assert (forks >= min_prefix).all()
    assert (forks + horizon <= length[:, None]).all()
    assert (np.diff(forks, axis=-1) > 0).all()
    assert forks[-1].tolist() == list(range(min_prefix, min_prefix + count))  # the only choice


@pytest.mark.parametrize("rule", ["uniform", "stride"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_position_is_equally_likely(rule, count):
    # 12 positions; with K = 3, stride gives each third one fork, uniform any three.
    rows, places = 6000, 12
    forks = select(rule, np.full(rows, 15), count, min_prefix=2, horizon=2)
    seen = np.bincount(forks.ravel(), minlength=LIMIT)
    expected = rows * count / places
    assert seen[:2].sum() + seen[2 + places :].sum() == 0
    # 11 degrees of freedom: a chi-square above 40 has probability 4e-5. Drawing without replacement
    # only makes it smaller.
    assert ((seen[2 : 2 + places] - expected) ** 2 / expected).sum() < 40


def test_uniform_forks_are_drawn_without_replacement_from_all_pairs():
    forks = select("uniform", np.full(6000, 6), 2)  # positions 1 … 5
    pairs = np.unique(forks, axis=0, return_counts=True)[1]
    assert len(pairs) == 10
    assert ((pairs - 600) ** 2 / 600).sum() < 35  # 9 degrees of freedom: probability 6e-5


def test_stride_is_even():
    forks = select("stride", np.full(50, 19), 3)  # 18 positions
    assert (np.diff(forks, axis=-1) == 6).all()


@pytest.mark.parametrize("rule", ["loss", "entropy"])
def test_highest_scores_are_taken(rule):
    random = np.random.default_rng(0)
    scores = random.random((40, LIMIT)).astype(np.float32)
    scores[:, [0, 1, LIMIT - 1]] = 9  # out of range
    length = random.integers(9, LIMIT, 40)
    forks = select(rule, length, 3, min_prefix=2, horizon=2, scores=jnp.asarray(scores))
    for row, n in enumerate(length):
        allowed = range(2, n - 2 + 1)
        best = sorted(allowed, key=lambda t: -scores[row, t])[:3]
        assert forks[row].tolist() == sorted(best)


@pytest.mark.parametrize("count", [1, 2])
def test_forks_in_a_band_are_uniform_in_it(count):
    """Of positions 2 … 12, five have a score in the band, which includes its bounds."""
    scores = np.full(LIMIT, 9.0, np.float32)
    scores[[0, 1, 13, 14]] = 2  # out of range
    inside = [3, 4, 7, 8, 12]
    scores[inside] = [1, 1.5, 2, 2.5, 3]
    scores[5] = 0.5
    rows = 3000
    forks = select(
        "band", np.full(rows, 14), count, min_prefix=2, horizon=2,
        scores=jnp.broadcast_to(scores, (rows, LIMIT)), band=(1.0, 3.0),
    )  # fmt: skip
    seen = np.bincount(forks.ravel(), minlength=LIMIT)
    assert set(np.flatnonzero(seen)) == set(inside)
    expected = rows * count / len(inside)
    assert ((seen[inside] - expected) ** 2 / expected).sum() < 24  # 4 degrees of freedom: 8e-5


def test_where_the_band_has_too_few_positions_the_others_fill_up():
    scores = jnp.zeros((50, LIMIT)).at[:, 6].set(2.0)
    forks = select("band", np.full(50, 14), 3, scores=scores, band=(1.0, 3.0))
    assert (forks == 6).any(axis=-1).all()
    assert (np.diff(forks, axis=-1) > 0).all()
    assert len(np.unique(forks)) == 13  # uniformly from all of them, 1 … 13


def test_the_loss_of_a_target_is_the_mean_over_its_tokens():
    loss = np.random.default_rng(0).random((3, LIMIT)).astype(np.float32)
    for horizon in (1, 2, 7):
        actual = np.asarray(target_losses(jnp.asarray(loss), horizon))
        for t in range(LIMIT - horizon + 1):
            expected = loss[:, t : t + horizon].mean(axis=-1)
            np.testing.assert_allclose(actual[:, t], expected, rtol=1e-6)


def test_given_forks_are_kept():
    given_forks = jnp.array([[7, 3], [2, 5]])
    assert select("given", [9, 9], 2, given=given_forks).tolist() == [[7, 3], [2, 5]]


@pytest.mark.parametrize("rule", ["uniform", "stride"])
def test_the_key_decides_and_nothing_else(rule):
    length = np.full(64, LIMIT)
    once = select(rule, length, 1)
    assert np.array_equal(once, select(rule, length, 1))
    assert not np.array_equal(once, select(rule, length, 1, seed=1))


def test_stride_is_distinct_when_its_start_is_a_hair_below_one():
    # The draw of this key rounds up to the next step, and all positions are needed.
    start = jax.random.split(jax.random.key(0), 2**20)[614518]
    assert jax.random.uniform(start) > 1 - 1e-5
    count = 100
    forks = select_forks(
        "stride",
        start[None],
        jnp.array([count + 1]),
        count,
        limit=count + 1,
        min_prefix=1,
        horizon=1,
    )
    assert forks[0].tolist() == list(range(1, count + 1))


@pytest.mark.parametrize(
    ("hardness", "expected"), [(0.0, [3, 7]), (0.45, [2, 4]), (0.55, [4, 6]), (1.0, [5, 8])]
)
def test_easy_to_hard_goes_from_the_lowest_scores_to_the_highest(hardness, expected):
    """Positions 2 … 8 are allowed; sorted by score, they are 3 7 2 4 6 5 8 (the median is 4)."""
    scores = np.zeros((1, LIMIT), np.float32)
    scores[0, [3, 7, 2, 4, 6, 5, 8]] = [1, 2, 3, 4, 5, 6, 7]
    scores[0, [0, 1, 9, 10]] = [9, -9, 9, -9]
    actual = select(
        "easy_to_hard", [10], 2, min_prefix=2, horizon=2, scores=jnp.asarray(scores),
        hardness=hardness,
    )  # fmt: skip
    assert actual[0].tolist() == expected
