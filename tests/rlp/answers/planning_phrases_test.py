"""Planning tokens of a response: those that contain a byte of a phrase."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.answers.planning_phrases import PHRASES, planning_actions


def marked(pieces, phrases):
    """Return 1 for each planning token of a response that consists of these bytes, else 0."""
    texts = [b"the table's other tokens", *pieces]
    actions = np.arange(1, len(texts))[None, None]
    words = np.array([[len(pieces)]])
    return planning_actions(actions, words, texts, phrases)[0, 0].astype(int).tolist()


@pytest.mark.parametrize(
    ("pieces", "marks"),
    [
        ([b"so ", b"wait", b", no"], [0, 1, 0]),
        ([b"so w", b"a", b"it, no"], [1, 1, 1]),  # across several tokens
        ([b"WAIT", b" ", b"Wait"], [1, 0, 1]),
        ([b"a", b"wait"], [0, 0]),  # inside a word
        ([b"wait", b"ing"], [0, 0]),
        ([b"wait", b"2"], [1, 0]),
        ([b"let", b" me", b" see", b" if"], [0, 0, 0, 0]),  # incomplete
        ([b"hold", b" ", b"on", b" ", b"hold on"], [1, 1, 1, 0, 1]),
        ([b"\nwait", b"wait", b" wait"], [0, 0, 1]),
        ([b"hold ", b"on second", b" thought"], [1, 1, 1]),  # two phrases share a word
        ([b"", b"wait", b"", b"."], [0, 1, 0, 0]),  # special tokens have no bytes
        ([b""], [0]),
        ([], []),
    ],
)
def test_tokens_of_whole_phrases_are_marked(pieces, marks):
    assert marked(pieces, ("wait", "hold on", "on second thought", " ", "")) == marks


@pytest.mark.parametrize(("text", "number"), [("“Wait”—wait…", 2), ("éwait waité wait", 1)])
def test_signs_end_a_word_and_letters_do_not(text, number):
    """With tokens of one byte each."""
    found = marked([bytes([byte]) for byte in text.encode()], ("wait",))
    spans = [m.span() for m in re.finditer(r"(?<![^\W\d_])wait(?![^\W\d_])", text, re.IGNORECASE)]
    character = [i for i, letter in enumerate(text) for _ in letter.encode()]  # of every byte
    assert found == [int(any(a <= i < b for a, b in spans)) for i in character]
    assert len(spans) == number


def test_a_character_that_tokens_share_is_of_both():
    e, acute = "é".encode()[:1], "é".encode()[1:]
    assert marked([b"r" + e, acute + b"fl" + e, acute + b"chir"], ("réfléchir",)) == [1, 1, 1]
    assert marked([b"R", "É".encode(), b"fl\xc3", b"\xa9chir"], ("réfléchir",)) == [1, 1, 1, 1]
    assert marked([b"wait ", b"\xff", b" \xe2\x80", b"wait"], ("wait",)) == [1, 0, 0, 1]


def test_words_after_the_end_of_a_response_are_ignored():
    """Actions continue with padding; the action that ends a response is not a word."""
    texts = [b"wait", b" ", b"end"]
    actions = np.array([[[0, 1, 0, 2, 0], [2, 0, 0, 0, 0]]])
    found = planning_actions(actions, np.array([[3, 0]]), texts, ("wait", "end"))
    assert found.dtype == bool
    assert found.tolist() == [[[True, False, True, False, False], [False] * 5]]


@given(
    st.lists(
        st.sampled_from(["wait", "Hold on", "on", "é", " ", "—", "ing", ".", "日", "hold"]),
        max_size=12,
    ),
    st.sets(st.integers(0, 60)),
)
@settings(max_examples=150, deadline=None)
def test_any_cut_of_a_text_into_tokens_marks_the_same_bytes(parts, cuts):
    phrases = ("wait", "hold on", "on hold")
    text = "".join(parts)
    whole = text.encode()
    ends = [0, *sorted(cut for cut in cuts if 0 < cut < len(whole)), len(whole)]
    pieces = [whole[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    begin = [len(text[:i].encode()) for i in range(len(text) + 1)]
    planned = set()
    for phrase in phrases:
        form = rf"(?<![^\W\d_])(?=({re.escape(phrase)})(?![^\W\d_]))"  # matches may overlap
        for match in re.finditer(form, text, re.IGNORECASE):
            planned |= set(range(begin[match.start(1)], begin[match.end(1)]))
    expected = [int(bool(planned & set(range(a, b)))) for a, b in zip(ends, ends[1:], strict=False)]
    assert marked(pieces, phrases) == expected


def test_the_default_phrases_are_in_lower_case_and_each_is_there_once():
    assert len(set(PHRASES)) == len(PHRASES)
    assert all(phrase == phrase.strip().lower() for phrase in PHRASES)
    assert marked([b"Wait, ", b"the answer is 2"], PHRASES) == [1, 0]
