"""Visible pairs of blocks are exact, and a work list contains each of them once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention_kernels import range_masks
from models.kernels.visits import KINDS, PARTIAL, RangeMask, block_pairs, by_keys, by_queries
from tests.support import tiny
from tests.support.forest import dense_mask, forest, mask

FORESTS = {
    "documents": {"trunk": 300, "documents": 5, "branches": 0},
    "trees": {"trunk": 200, "documents": 3, "branches": 9, "slots": 37},
    "near": {"trunk": 300, "documents": 2, "branches": 6, "slots": 50, "window": 40},
    "hundreds": {"trunk": 70, "branches": 300, "slots": 3},
    "decoding": {"trunk": 300, "branches": 20, "slots": 60, "last": True},
}


def masks_of(case, seed=0):
    f = forest(seed, **FORESTS[case])
    return f, range_masks(f.at, f.shared, f.own, f.window, 2)


def numpy_pairs(range_mask, block_q, block_kv):
    """`block_pairs` with numpy arrays."""
    traced = []

    @tiny.jit
    def compute(range_mask):
        traced.append(block_pairs(range_mask, block_q, block_kv))
        return traced[0].visible, traced[0].full

    visible, full = map(np.asarray, compute(range_mask))
    return dataclasses.replace(traced[0], visible=visible, full=full)


def blocks(dense, block_q, block_kv):
    """Cut [B, R, S] into [B, query blocks, block_q, key blocks, block_kv], padded with False."""
    batch, rows, slots = dense.shape
    dense = np.pad(dense, ((0, 0), (0, -rows % block_q), (0, -slots % block_kv)))
    return dense.reshape(batch, dense.shape[1] // block_q, block_q, -1, block_kv)


@pytest.mark.parametrize("case", FORESTS)
def test_range_masks_are_the_rule(case):
    f, masks = masks_of(case)
    dense = np.concatenate([dense_mask(range_mask) for range_mask in masks], axis=2)
    assert np.array_equal(dense, np.repeat(mask(f), 2, axis=1))  # two heads share a head of keys


@pytest.mark.parametrize("case", FORESTS)
@pytest.mark.parametrize(("block_q", "block_kv"), [(16, 16), (64, 32), (32, 128)])
def test_exactly_the_visible_pairs_are_visited(case, block_q, block_kv):
    for seed in range(2):
        for range_mask in masks_of(case, seed)[1]:
            pairs = numpy_pairs(range_mask, block_q, block_kv)
            dense = blocks(dense_mask(range_mask), block_q, block_kv)
            visible, full = dense.any((2, 4)), dense.all((2, 4))
            assert pairs.visible.sum() == visible.sum()  # with the next lines: and no others
            for n, (q, kv) in enumerate(zip(pairs.q_block, pairs.kv_block, strict=True)):
                assert np.array_equal(pairs.visible[:, n], visible[:, q, kv])
                assert np.array_equal(pairs.full[:, n], full[:, q, kv])


def test_keys_in_any_order_are_not_missed():
    random = np.random.default_rng(0)
    draw = lambda n, most: jnp.asarray(random.integers(0, most, (2, n)), jnp.int32)
    low = draw(96, 40)
    q_segment, high = draw(96, 4), low + draw(96, 9)
    range_mask = RangeMask(q_segment, low, high, draw(160, 4), draw(160, 50), groups=1)
    pairs = numpy_pairs(range_mask, 16, 16)
    visible = blocks(dense_mask(range_mask), 16, 16).any((2, 4))
    visited = np.zeros_like(visible)
    visited[:, pairs.q_block, pairs.kv_block] = pairs.visible
    assert not (visible & ~visited).any()


@pytest.mark.parametrize("include_empty", [False, True])
@pytest.mark.parametrize("case", FORESTS)
def test_a_worklist_contains_every_pair_once_and_in_order(case, include_empty):
    _, masks = masks_of(case)
    sources = [numpy_pairs(range_mask, 32, 16) for range_mask in masks]

    @tiny.jit
    def compute():
        return by_queries(sources, include_empty), [by_keys(p, include_empty) for p in sources]

    query_list, key_lists = compute()
    queries_first = lambda p: (p.q_block, p.q_blocks, p.kv_block, p.kv_blocks)
    keys_first = lambda p: (p.kv_block, p.kv_blocks, p.q_block, p.q_blocks)
    check(query_list, sources, queries_first, include_empty)
    for work, pairs in zip(key_lists, sources, strict=True):
        check(work, [pairs], keys_first, include_empty)


def check(work, sources, sides, include_empty):
    expected = set()
    kinds = KINDS * len(sources)
    for source, pairs in enumerate(sources):
        target, targets, other, others = sides(pairs)
        for row, n in zip(*np.nonzero(pairs.visible), strict=True):
            kind = KINDS * source + (PARTIAL if not pairs.full[row, n] else 0)
            expected.add((row * targets + target[n], kind, row * others + other[n]))
    total = int(work.total)
    entries = np.stack([work.target, work.kind, work.other], axis=1)
    assert np.all(entries[total:, 0] == -1)
    assert len(entries) > total
    visible = entries[:total][entries[:total, 1] >= 0]
    assert len(visible) == len(expected)
    assert set(map(tuple, visible.tolist())) == expected
    sort_key = visible[:, 0] * kinds + visible[:, 1]
    assert np.all(np.diff(sort_key) >= 0)
    all_targets = np.arange(len(sources[0].visible) * targets)
    unseen = np.setdiff1d(all_targets, visible[:, 0])
    empty = entries[:total][entries[:total, 1] < 0][:, 0]
    assert np.array_equal(np.sort(empty), unseen if include_empty else [])
    assert np.all(np.diff(entries[:total, 0]) >= 0)
    bounds = np.searchsorted(sort_key, np.arange(len(all_targets) * kinds + 1))
    assert np.array_equal(work.starts, bounds)


def test_forks_may_change_without_a_compilation():
    compiled = jax.jit(lambda x: by_keys(block_pairs(x, 32, 16), include_empty=True).total)
    totals = {int(compiled(masks_of("trees", seed)[1][0])) for seed in range(3)}
    assert len(totals) > 1
    assert compiled._cache_size() == 1
