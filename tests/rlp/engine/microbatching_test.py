"""Batches are as large as their limit allows, divide the whole, and are shared by all devices."""

import numpy as np
import pytest

from rlp.engine.microbatching import largest_batch, split, unsplit


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def shapes(documents: int, branches: int, unit: int, limit: int, shards: int):
    """All allowed batches: whole documents, or some branches of one document per device."""
    whole = [(rows, branches) for rows in divisors(documents) if rows % shards == 0]
    cut = [(shards, each) for each in divisors(branches) if each % unit == 0]
    return [batch for batch in whole + cut if not limit or batch[0] * batch[1] <= limit]


@pytest.mark.parametrize("documents", [1, 4, 6])
@pytest.mark.parametrize("branches", [1, 4, 12])
def test_a_batch_is_the_largest_that_is_allowed(documents, branches):
    for unit in divisors(branches):
        for shards in divisors(documents):
            for limit in range(documents * branches + 2):
                sizes = (documents, branches, unit, limit, shards)
                allowed = shapes(*sizes)
                if allowed:
                    assert largest_batch(*sizes, "rlp.of") == max(
                        allowed, key=lambda batch: batch[0] * batch[1]
                    )
                else:
                    assert 0 < limit < unit * shards
                    with pytest.raises(
                        ValueError, match=rf"rlp\.of={limit} .* set it to {unit * shards} or"
                    ):
                        largest_batch(*sizes, "rlp.of")


def test_a_batch_of_a_billion_is_found_at_once():
    prime = 2**31 - 1
    assert largest_batch(prime, 3, 3, 3 * prime - 1, 1, "rlp.of") == (1, 3)
    assert largest_batch(1, prime, 1, prime - 1, 1, "rlp.of") == (1, 1)
    assert largest_batch(10**9, 7, 7, 7 * 10**8, 8, "rlp.of") == (10**8, 7)


def test_without_a_limit_there_is_one_batch():
    assert largest_batch(6, 12, 4, 0, 2, "") == (6, 12)
    assert largest_batch(6, 12, 4, 72, 2, "") == (6, 12)
    assert largest_batch(6, 12, 4, 71, 1, "") == (3, 12)
    assert largest_batch(6, 12, 4, 71, 2, "") == (2, 12)  # 3 is not a multiple of 2 devices


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_every_element_is_in_one_part(count, axis):
    x = np.arange(6 * 12 * 6).reshape(6, 12, 6)
    pieces = split(x, count, axis)
    size = x.shape[axis] // count
    assert pieces.shape == (count, *x.shape[:axis], size, *x.shape[axis + 1 :])
    for part, piece in enumerate(np.asarray(pieces)):
        assert np.array_equal(piece, np.take(x, np.arange(size) * count + part, axis))
    assert np.array_equal(unsplit(pieces, axis), x)


@pytest.mark.parametrize(("documents", "limit", "shards"), [(8, 8, 2), (12, 8, 4), (12, 16, 2)])
def test_every_device_has_an_equal_share_of_every_batch(documents, limit, shards):
    rows, _ = largest_batch(documents, 2, 1, limit, shards, "")
    device = np.arange(documents) // (documents // shards)  # as a batch is sharded
    assert documents // rows > 1
    for batch in np.asarray(split(device, documents // rows)):
        assert np.bincount(batch, minlength=shards).tolist() == [rows // shards] * shards
