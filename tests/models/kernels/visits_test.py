"""Which blocks meet is exact, and a worklist holds each pair once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention_kernels import sights_of
from models.kernels.visits import KINDS, PARTIAL, Sight, by_keys, by_queries, meetings
from tests.support import tiny
from tests.support.forest import forest, mask, seen_by

FORESTS = {
    "documents": {"trunk": 300, "documents": 5, "branches": 0},
    "trees": {"trunk": 200, "documents": 3, "branches": 9, "slots": 37},
    "near": {"trunk": 300, "documents": 2, "branches": 6, "slots": 50, "window": 40},
    "hundreds": {"trunk": 70, "branches": 300, "slots": 3},
    "decoding": {"trunk": 300, "branches": 20, "slots": 60, "last": True},
}


def sights(case, seed=0):
    f = forest(seed, **FORESTS[case])
    return f, sights_of(f.at, f.shared, f.own, f.window, 2)


def meet(sight, queries, keys):
    """`meetings` of numpy arrays."""
    found = []

    @tiny.jit
    def compute(sight):
        found.append(meetings(sight, queries, keys))
        return found[0].seen, found[0].full

    seen, full = map(np.asarray, compute(sight))
    return dataclasses.replace(found[0], seen=seen, full=full)


def blocks(full, queries, keys):
    """[B, R, S] in blocks, [B, query blocks, queries, key blocks, keys], filled up with False."""
    batch, rows, slots = full.shape
    full = np.pad(full, ((0, 0), (0, -rows % queries), (0, -slots % keys)))
    return full.reshape(batch, full.shape[1] // queries, queries, -1, keys)


@pytest.mark.parametrize("case", FORESTS)
def test_a_sight_is_the_rule(case):
    f, found = sights(case)
    seen = np.concatenate([seen_by(sight) for sight in found], axis=2)
    assert np.array_equal(seen, np.repeat(mask(f), 2, axis=1))  # two heads to a head of keys


@pytest.mark.parametrize("case", FORESTS)
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (64, 32), (32, 128)])
def test_what_is_visited_is_what_is_seen(case, queries, keys):
    for seed in range(2):
        for sight in sights(case, seed)[1]:
            met = meet(sight, queries, keys)
            cut = blocks(seen_by(sight), queries, keys)
            exact, whole = cut.any((2, 4)), cut.all((2, 4))
            assert met.seen.sum() == exact.sum()  # and with the next lines: nothing else
            for n, (query, key) in enumerate(zip(met.query_block, met.key_block, strict=True)):
                assert np.array_equal(met.seen[:, n], exact[:, query, key])
                assert np.array_equal(met.full[:, n], whole[:, query, key])


def test_keys_in_any_order_are_not_missed():
    random = np.random.default_rng(0)
    draw = lambda n, most: jnp.asarray(random.integers(0, most, (2, n)), jnp.int32)
    low = draw(96, 40)
    sight = Sight(draw(96, 4), low, low + draw(96, 9), draw(160, 4), draw(160, 50), groups=1)
    met = meet(sight, 16, 16)
    exact = blocks(seen_by(sight), 16, 16).any((2, 4))
    visited = np.zeros_like(exact)
    visited[:, met.query_block, met.key_block] = met.seen
    assert not (exact & ~visited).any()


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("case", FORESTS)
def test_a_worklist_holds_every_pair_once_and_in_order(case, idle):
    _, found = sights(case)
    met = [meet(sight, 32, 16) for sight in found]
    work = tiny.jit(lambda: (by_queries(met, idle), [by_keys(m, idle) for m in met]))
    queries_first, keys_first = work()
    by_query = lambda m: (m.query_block, m.query_blocks, m.key_block, m.key_blocks)
    by_key = lambda m: (m.key_block, m.key_blocks, m.query_block, m.query_blocks)
    check(queries_first, met, by_query, idle)
    for work, m in zip(keys_first, met, strict=True):
        check(work, [m], by_key, idle)


def check(work, sources, sides, idle):
    expected = set()
    kinds = KINDS * len(sources)
    for source, m in enumerate(sources):
        target, targets, other, others = sides(m)
        for row, pair in zip(*np.nonzero(m.seen), strict=True):
            kind = KINDS * source + (PARTIAL if not m.full[row, pair] else 0)
            expected.add((row * targets + target[pair], kind, row * others + other[pair]))
    total = int(work.total)
    items = np.stack([work.target, work.kind, work.other], axis=1)
    assert np.all(items[total:, 0] == -1)
    assert len(items) > total
    real = items[:total][items[:total, 1] >= 0]
    assert len(real) == len(expected)
    assert set(map(tuple, real.tolist())) == expected
    place = real[:, 0] * kinds + real[:, 1]
    assert np.all(np.diff(place) >= 0)
    all_targets = np.arange(len(sources[0].seen) * targets)
    alone = np.setdiff1d(all_targets, real[:, 0])
    empty = items[:total][items[:total, 1] < 0][:, 0]
    assert np.array_equal(np.sort(empty), alone if idle else [])
    assert np.all(np.diff(items[:total, 0]) >= 0)
    bounds = np.searchsorted(place, np.arange(len(all_targets) * kinds + 1))
    assert np.array_equal(work.starts, bounds)


def test_forks_may_change_without_a_compilation():
    compiled = jax.jit(lambda sight: by_keys(meetings(sight, 32, 16), idle=True).total)
    totals = {int(compiled(sights("trees", seed)[1][0])) for seed in range(3)}
    assert len(totals) > 1
    assert compiled._cache_size() == 1
