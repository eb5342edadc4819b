"""Positions are inside their documents, are drawn without a look at a network, and cover a text."""

from collections import Counter

import numpy as np
import pytest

from rlp.data.located_text import locate
from rlp.evaluation.measures.positions import FORKS, Positions, choose
from rlp.tokenizers.byte_tokenizer import ByteTokenizer

BYTES = ByteTokenizer()
RANDOM = np.random.default_rng(0)
DOCUMENTS = [
    locate("".join(RANDOM.choice(list("abcd "), n)), BYTES) for n in (40, 5, 12, 3, 100, 4, 31)
]
HORIZON, LENGTH = 3, 17


def chosen(rule: Positions, documents=DOCUMENTS, seed: int = 0, horizon: int = HORIZON):
    forked = choose(documents, rule, horizon, LENGTH, BYTES, seed)
    assert forked is not None
    return forked


def places(forked) -> list[tuple[int, int]]:
    document = np.repeat(forked.document, forked.real.sum(axis=1))
    return list(zip(document.tolist(), forked.position[forked.real].tolist(), strict=True))


RULES = {
    "drawn": Positions(5),
    "many": Positions(3 * FORKS),
    "every": Positions(stride=1),
    "strided": Positions(stride=HORIZON),
    "marked": Positions(marker="a"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_row_has_the_text_of_the_document_on_both_sides_of_a_fork(rule):
    forked = chosen(rule)
    assert forked.real[:, 0].all()
    for row, k in np.ndindex(*forked.real.shape):
        ids = DOCUMENTS[forked.document[row]].ids
        fork, position = forked.rows.forks[row, k], forked.position[row, k]
        before = fork - 1  # tokens of the document after BOS
        assert before >= 1
        tokens = forked.rows.tokens[row]
        assert tokens[0] == BYTES.bos[0]
        assert (
            tokens[1 : fork + HORIZON].tolist()
            == ids[position - before : position + HORIZON].tolist()
        )
        assert forked.rows.segment[row, : fork + HORIZON].all()
    real = places(forked)
    assert len(set(real)) == len(real)
    assert [real[i] for i in forked.number[:, 0]] == list(
        zip(forked.document, forked.position[:, 0], strict=True)
    )


def test_every_stride_covers_every_document_with_targets():
    counts = Counter(document for document, _ in places(chosen(RULES["strided"])))
    every = Counter(document for document, _ in places(chosen(RULES["every"])))
    for number, document in enumerate(DOCUMENTS):
        size = len(document.ids)
        assert every[number] == max(0, size - HORIZON)
        assert counts[number] == max(0, (size - 1) // HORIZON)
    covered = [(d, t + h) for d, t in places(chosen(RULES["strided"])) for h in range(HORIZON)]
    assert len(set(covered)) == len(covered)


def test_draws_depend_on_the_seed_and_the_number_of_the_document_only():
    rule = RULES["drawn"]
    assert places(chosen(rule, DOCUMENTS[:3])) == [p for p in places(chosen(rule)) if p[0] < 3]
    assert places(chosen(rule)) == places(chosen(rule))
    assert places(chosen(rule, seed=1)) != places(chosen(rule))


def test_all_positions_of_short_documents_are_drawn_equally_often():
    one = [DOCUMENTS[2]] * 4000
    counts = Counter(position for _, position in places(chosen(Positions(2), one)))
    assert sorted(counts) == list(range(1, 12 - HORIZON + 1))
    expected = 8000 / len(counts)
    assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5


def test_a_marked_position_is_after_the_last_marker():
    documents = [locate(text, BYTES) for text in ("xa12345", "aaa=5678", "no marker")]
    marked = places(chosen(Positions(marker="a"), documents))
    assert marked == [(0, 2), (1, 3), (2, 5)]


def test_a_marked_position_may_have_fewer_tokens_after_it_than_the_horizon():
    documents = [locate(text, BYTES) for text in ("xya12345", "x=a7", "nothing follows a")]
    assert HORIZON > 1
    assert places(chosen(Positions(marker="a"), documents)) == [(0, 3), (1, 3)]
    assert places(chosen(Positions(stride=1), documents[1:2])) == [
        (0, t) for t in range(1, 4 - HORIZON + 1)
    ]


def test_documents_without_a_position_are_no_rows():
    assert choose([DOCUMENTS[3]], Positions(), HORIZON, LENGTH, BYTES, 0) is None
