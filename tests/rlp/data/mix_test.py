"""Mixtures of two streams: their shares, and batches that start and end anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.data.mix import MixedStream
from rlp.data.pairs import pair_streams
from tests.support.documents import text_streams
from tests.support.pairs import BYTES, PAIR, numbered, write

NAMES = ("tokens", "segment", "position", "index", "forks", "loss_mask")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Packed training rows of documents and of pairs."""
    folder = tmp_path_factory.mktemp("both")
    texts = write(folder / "texts.jsonl", [{"text": f"text {i}" * (i % 3 + 1)} for i in range(30)])
    words = {"tokenizer": BYTES, "sequence_length": 24, "pack": True, "seed": 3}
    documents, _ = text_streams(train=texts, **words)
    pairs = write(folder / "pairs.jsonl", numbered(40))
    return documents, pair_streams(train=pairs, form=PAIR, template=None, **words)[0]


@given(st.integers(1, 99), st.integers(0, 10**6), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_mixture_has_its_share_of_pairs_wherever_it_is_cut(both, percent, first, size):
    documents, pairs = both
    mixed = MixedStream(documents, pairs, percent / 100)
    before = first * percent // 100
    number = {True: before, False: first - before}  # next record of pairs, and of documents
    batch = mixed.batch(first, size)
    assert batch.index.tolist() == list(range(first, first + size))
    for row in range(size):
        is_pair = (first + row + 1) * percent // 100 > (first + row) * percent // 100
        source = (pairs if is_pair else documents).batch(number[is_pair], 1)
        number[is_pair] += 1
        mask = source.loss_mask if is_pair else np.ones((1, 24), bool)
        for name in NAMES:
            if name != "index":
                expected = mask if name == "loss_mask" else getattr(source, name)
                np.testing.assert_array_equal(getattr(batch, name)[row], expected[0])


def test_batches_of_a_mixture_do_not_depend_on_where_it_is_cut(both):
    mixed = MixedStream(*both, 0.3)
    fields = lambda *where: [getattr(mixed.batch(*where), name) for name in NAMES]
    whole = fields(95, 12)
    for split in (0, 1, 5, 12):
        parts = zip(fields(95, split), fields(95 + split, 12 - split), strict=True)
        for joined, expected in zip(map(np.concatenate, parts), whole, strict=True):
            np.testing.assert_array_equal(joined, expected)
            assert joined.dtype == expected.dtype
