"""The walks of the demo with thoughts at any position."""

import numpy as np
import pytest

from rlp.data.compass import (
    ANSWER_LENGTH,
    DOCUMENT_LENGTH,
    HEADINGS,
    NUM_TURNS,
    TOKENIZER,
    CompassStream,
    walk,
)

WORDS = TOKENIZER
COUNT, LENGTH = 400, 40


def documents(**options):
    """Return the words and the fork of each document."""
    batch = CompassStream(3, LENGTH, **options).batch(0, COUNT)
    length = np.asarray(batch.segment).sum(axis=1)
    return [
        (WORDS.pieces(row[:n].tolist()), int(fork[0]))
        for row, n, fork in zip(batch.tokens, length, batch.forks, strict=True)
    ]


def test_a_thought_anywhere_leaves_the_document_as_it_is():
    plain = [words for words, _ in documents()]
    forks = set()
    for (words, fork), expected in zip(
        documents(thought_share=1.0, anywhere_share=1.0), plain, strict=True
    ):
        end = words.index("</think>")
        assert words[fork] == "<think>"
        assert [*words[:fork], *words[end + 1 :]] == expected
        forks.add(fork)
    assert forks == set(range(1, DOCUMENT_LENGTH - ANSWER_LENGTH + 1))


def test_a_share_of_the_thoughts_is_anywhere():
    at_the_answer = DOCUMENT_LENGTH - ANSWER_LENGTH
    forks = [fork for _, fork in documents(thought_share=1.0, anywhere_share=0.5)]
    elsewhere = 0.5 * (1 - 1 / at_the_answer)
    assert np.mean(np.array(forks) != at_the_answer) == pytest.approx(elsewhere, abs=0.08)


def test_a_thought_lists_the_headings_after_the_turns_so_far():
    lengths = set()
    for words, fork in documents(thought_share=1.0, anywhere_share=1.0):
        thought = words[fork + 1 : words.index("</think>")]
        turns = words[7:fork][:NUM_TURNS]  # after "<bos> Mia faces north . She turns"
        if not turns:
            assert thought[0] == "hmm"
            continue
        assert thought == walk(HEADINGS.index(words[3]), turns)
        lengths.add(len(thought))
    assert lengths == set(range(1, NUM_TURNS + 1))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_musings_have_their_share_of_the_thoughts_that_follow_a_turn(share):
    walks = documents(thought_share=1.0, late_musing_share=share, anywhere_share=1.0)
    is_musing = [words[fork + 1] == "hmm" for words, fork in walks if fork > 7]
    assert np.mean(is_musing) == pytest.approx(share, abs=0.08)
