"""The live slots of a branch, sorted by position, are the row that one would write by hand."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.engine.branches import (
    Thoughts,
    closes,
    document_trunk,
    empty_branches,
    lay_out,
    make_forks,
    unclosable,
    vocabulary,
)
from tests.support import naive, tiny
from tests.support.tiny import BOS, CLOSE, EOS, OPEN, PAD

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
TAGS = [((OPEN,), (CLOSE,)), ((7, 8), (9, 10)), ((OPEN,), (9, 8, 9)), ((7, 8, 9), (CLOSE,))]


def thoughts_of(lines: list[list[int]], limit: int, close=(CLOSE,)) -> Thoughts:
    """Thoughts of one row, [1, N, L]."""
    actions = np.full((1, len(lines), limit), PAD, np.int32)
    for n, line in enumerate(lines):
        actions[0, n, : len(line)] = line
    return Thoughts(
        actions=jnp.asarray(actions),
        length=jnp.array([[len(line) for line in lines]]),
        closed=jnp.array([[tuple(line[-len(close) :]) == close for line in lines]]),
        logprobs=jnp.zeros(actions.shape),
    )


LIMIT = 5
word = st.integers(tiny.FIRST_WORD, 10) | st.integers(tiny.FIRST_WORD, 21)


@st.composite
def lines_and_words(draw):
    """Three thoughts of at most `LIMIT` actions, closed or not, and their vocabulary."""
    think_open, close = draw(st.sampled_from(TAGS))
    most = LIMIT - len(close)
    closed = st.lists(word, min_size=1, max_size=most).map(lambda line: [*line, *close])
    unclosed = st.lists(word, min_size=LIMIT, max_size=LIMIT)
    lines = draw(st.lists(closed | unclosed, min_size=3, max_size=3))
    return lines, tiny.words(CONFIG, think_open=think_open, think_close=close)


@settings(deadline=None, max_examples=60)  # the first examples compile
@given(
    thoughts=lines_and_words(),
    forks=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    horizon=st.integers(1, 3),
    prompt=st.sampled_from([(), (7, 8, 9)]),
)
def test_a_laid_out_branch_is_the_row_written_by_hand(thoughts, forks, horizon, prompt):
    lines, words = thoughts
    document = tiny.documents(0, [12], 14, 22)
    trunk = document_trunk(document, prompt, 1)
    actual = make_forks(document, jnp.array([forks]), horizon)
    branches = lay_out(
        thoughts_of(lines, LIMIT, words.think_close),
        actual.target,
        actual.position + len(prompt),
        jnp.ones((1, 3), jnp.int32),
        words,
    )
    text = document.tokens[0].tolist()
    by_hand = [naive.Branch(text, f, line, horizon) for f, line in zip(forks, lines, strict=True)]
    rows = naive.write_out(by_hand, words, LIMIT, 30, prompt)
    slots = len(words.think_open) + LIMIT + len(words.think_close) + horizon - 1
    assert branches.tokens.shape == (1, 3, slots)
    for n in range(3):
        live = np.asarray(branches.live[0, n])
        own = dict(
            zip(
                np.asarray(branches.position[0, n])[live].tolist(),
                np.asarray(branches.tokens[0, n])[live].tolist(),
                strict=True,
            )
        )
        fork = int(branches.fork[0, n])
        line = np.asarray(trunk.tokens)[0, :fork].tolist()
        line += [own[place] for place in sorted(own)]
        assert sorted(own) == list(range(fork, len(line)))  # no gap, nothing twice
        assert line == rows.tokens[n, : rows.length[n] - 1].tolist()  # all but the last target


def test_thought_slots_hold_words_and_the_closing_tag_its_own():
    branches = lay_out(
        thoughts_of([[7, CLOSE], [7, 8, 9]], 3),
        jnp.array([[[11, 12], [13, 14]]]),
        jnp.array([[5, 6]]),
        jnp.ones((1, 2), jnp.int32),
        WORDS,
    )
    assert branches.tokens[0].tolist() == [
        [OPEN, 7, PAD, PAD, CLOSE, 11],
        [OPEN, 7, 8, 9, CLOSE, 13],
    ]
    assert branches.live[0].tolist() == [[True, True, False, False, True, True], [True] * 6]
    at = branches.at
    assert at.segment[0].tolist() == [[1, 1, 0, 0, 1, 1], [1] * 6]
    assert at.branch[0].tolist() == [[1] * 6, [2] * 6]
    assert at.fork[0].tolist() == [[5] * 6, [6] * 6]


def test_a_long_tag_stands_among_the_actions_or_after_them_and_ends_in_its_own_slot():
    branches = lay_out(
        thoughts_of([[7, 9, 8, 9], [7, 5, 6, 9]], 4, (9, 8, 9)),
        jnp.array([[[11, 12], [13, 14]]]),
        jnp.array([[5, 6]]),
        jnp.ones((1, 2), jnp.int32),
        tiny.words(CONFIG, think_open=(7, 8), think_close=(9, 8, 9)),
    )
    live = np.asarray(branches.live[0])
    tokens = np.where(live, branches.tokens[0], -1)
    assert tokens.tolist() == [
        [7, 8, 7, 9, 8, -1, -1, -1, 9, 11],
        [7, 8, 7, 5, 6, 9, 9, 8, 9, 13],
    ]
    assert np.asarray(branches.position[0])[0, live[0]].tolist() == list(range(5, 12))
    assert np.asarray(branches.position[0])[1].tolist() == list(range(6, 16))


@pytest.mark.parametrize("tag", [(0,), (0, 0), (0, 1), (0, 1, 0), (1, 1, 0)], ids=str)
@pytest.mark.parametrize(("limit", "least"), [(1, 1), (2, 1), (5, 1), (5, 2), (6, 4)])
def test_the_tag_ends_a_thought_that_has_its_words(tag, limit, least):
    """For all sequences of two token ids, after every action; `least` words are the minimum."""
    every = np.array(list(itertools.product((0, 1), repeat=limit)))
    banned = np.asarray(unclosable(jnp.asarray(every), jnp.arange(limit), tag, least))
    for number in range(limit):
        ends = np.asarray(closes(jnp.asarray(every), jnp.int32(number), tag))
        for line, end, ban in zip(every.tolist(), ends, banned[:, number], strict=True):
            written = tuple(line[: number + 1])
            words = written[: max(0, len(written) - len(tag))]
            assert end == (bool(words) and written == (*words, *tag))
            closing = (*written[:-1], tag[-1])  # if the action were the last token of the tag
            assert ban == (closing[len(words) :] == tag and len(words) < least)


def test_empty_branches_hold_their_opening_tag():
    branches = empty_branches(jnp.array([[3, 5]]), jnp.ones((1, 2), jnp.int32), 4, WORDS)
    assert branches.tokens[0].tolist() == [[OPEN, PAD, PAD, PAD]] * 2
    assert branches.live[0].tolist() == [[True, False, False, False]] * 2
    assert branches.position[0].tolist() == [[3, 4, 5, 6], [5, 6, 7, 8]]
    words = tiny.words(CONFIG, think_open=(7, 9, 7))
    branches = empty_branches(jnp.array([[3]]), jnp.ones((1, 1), jnp.int32), 4, words)
    assert branches.tokens[0].tolist() == [[7, 9, 7, PAD]]
    assert branches.live[0].tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("bos", [0, 1, 2])
def test_trunk_with_a_prompt_behind_its_bos_is_the_longer_document(bos):
    document = tiny.documents(1, [6, 8], 8, 22)
    trunk = document_trunk(document, (9, 10), bos)
    assert trunk.tokens[:, bos : bos + 2].tolist() == [[9, 10]] * 2
    assert np.array_equal(np.delete(trunk.tokens, [bos, bos + 1], axis=1), document.tokens)
    assert trunk.segment[0].tolist() == [1] * 8 + [0] * 2
    assert trunk.position[1].tolist() == list(range(10))
    plain = document_trunk(document)
    for name in ("tokens", "segment", "position"):
        assert np.array_equal(getattr(plain, name), getattr(document, name))


def test_targets_are_the_tokens_at_the_fork():
    document = tiny.documents(2, [12, 12], 12, 22)
    forks = make_forks(document, jnp.array([[1, 9], [4, 5]]), 3)
    for row, places in enumerate([[1, 9], [4, 5]]):
        for k, place in enumerate(places):
            assert forks.target[row, k].tolist() == document.tokens[row, place : place + 3].tolist()


def test_vocabulary_bans_what_cannot_occur():
    ids = {"think_open": (OPEN,), "think_close": (CLOSE,), "used": 7, "size": 9}
    full = vocabulary(**ids, pad=PAD, bos=(BOS,), eos=EOS, separator=EOS)
    assert set(full.not_in_thoughts) == {OPEN, PAD, BOS, EOS, 7, 8}
    assert set(full.not_in_documents) == {OPEN, CLOSE, PAD, BOS, 7, 8}
    assert CLOSE not in full.not_in_thoughts  # it ends a thought
    assert EOS not in full.not_in_documents  # it ends a document
    shared = vocabulary(**ids, pad=EOS, bos=(), eos=EOS, separator=EOS)
    assert EOS in shared.not_in_thoughts
    assert EOS not in shared.not_in_documents


def test_a_thought_holds_neither_eos_nor_separator_and_a_document_may():
    ids = {"think_open": (OPEN,), "think_close": (CLOSE,), "used": 9, "size": 9, "pad": PAD}
    other = vocabulary(**ids, bos=(BOS,), eos=EOS, separator=7)
    assert set(other.not_in_thoughts) == {OPEN, PAD, BOS, EOS, 7}
    assert set(other.not_in_documents) == {OPEN, CLOSE, PAD, BOS}
    one_for_both = vocabulary(**ids, bos=(BOS,), eos=EOS, separator=BOS)
    assert set(one_for_both.not_in_thoughts) == {OPEN, PAD, BOS, EOS}
    assert set(one_for_both.not_in_documents) == {OPEN, CLOSE, PAD}


def test_the_pieces_of_a_tag_are_banned_nowhere():
    rest = {"pad": PAD, "bos": (BOS,), "eos": EOS, "separator": EOS, "used": 9, "size": 9}
    both = vocabulary(think_open=(5, 6), think_close=(7, 6, 8), **rest)
    assert set(both.not_in_thoughts) == {PAD, BOS, EOS}
    assert set(both.not_in_documents) == {PAD, BOS}
    opened = vocabulary(think_open=(OPEN,), think_close=(7, 8), **rest)
    assert set(opened.not_in_thoughts) == {OPEN, PAD, BOS, EOS}
    assert set(opened.not_in_documents) == {OPEN, PAD, BOS}
    closed = vocabulary(think_open=(7, 8), think_close=(CLOSE,), **rest)
    assert set(closed.not_in_thoughts) == {PAD, BOS, EOS}
    assert set(closed.not_in_documents) == {CLOSE, PAD, BOS}


def test_a_closing_tag_that_no_thought_can_write_is_refused():
    rest = {"think_open": (OPEN,), "pad": PAD, "bos": (BOS,), "used": 9, "size": 9}
    for eos, separator in ((6, EOS), (EOS, 6)):
        with pytest.raises(ValueError, match=r"closing tag \(5, 6\) shares the ids \[6\]"):
            vocabulary(**rest, think_close=(5, 6), eos=eos, separator=separator)
