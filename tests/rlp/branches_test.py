"""Slots of a branch: read in order of position, they are the row that one would write by hand."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.branches import Thoughts, document_trunk, empty_branches, lay_out, make_forks, vocabulary
from tests import naive, tiny
from tests.tiny import BOS, CLOSE, EOS, OPEN, PAD

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)


def thoughts_of(lines: list[list[int]], limit: int) -> Thoughts:
    """Thoughts of one row, [1, N, L]."""
    actions = np.full((1, len(lines), limit), PAD, np.int32)
    for n, line in enumerate(lines):
        actions[0, n, : len(line)] = line
    return Thoughts(
        actions=jnp.asarray(actions),
        length=jnp.array([[len(line) for line in lines]]),
        closed=jnp.array([[line[-1] == CLOSE for line in lines]]),
        logprobs=jnp.zeros(actions.shape),
    )


word = st.integers(tiny.FIRST_WORD, 21)
unclosed = st.lists(word, min_size=4, max_size=4)
closed = st.lists(word, min_size=1, max_size=3).map(lambda line: [*line, CLOSE])


@settings(deadline=None, max_examples=40)  # the first example compiles
@given(
    lines=st.lists(closed | unclosed, min_size=3, max_size=3),
    forks=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    horizon=st.integers(1, 3),
    prompt=st.sampled_from([(), (7, 8, 9)]),
)
def test_a_laid_out_branch_is_the_row_written_by_hand(lines, forks, horizon, prompt):
    document = tiny.documents(0, [12], 14, 22)
    trunk = document_trunk(document, prompt)
    found = make_forks(document, jnp.array([forks]), horizon)
    branches = lay_out(
        thoughts_of(lines, 4),
        found.target,
        found.position + len(prompt),
        jnp.ones((1, 3), jnp.int32),
        WORDS,
    )
    text = document.tokens[0].tolist()
    by_hand = [naive.Branch(text, f, line, horizon) for f, line in zip(forks, lines, strict=True)]
    rows = naive.write_out(by_hand, WORDS, 4, 30, prompt)
    assert branches.tokens.shape == (1, 3, 4 + horizon + 1)
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
        assert line == rows.tokens[n, : rows.length[n] - 1].tolist()  # the last target is not read


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


def test_empty_branches_hold_their_opening_tag():
    branches = empty_branches(jnp.array([[3, 5]]), jnp.ones((1, 2), jnp.int32), 4, WORDS)
    assert branches.tokens[0].tolist() == [[OPEN, PAD, PAD, PAD]] * 2
    assert branches.live[0].tolist() == [[True, False, False, False]] * 2
    assert branches.position[0].tolist() == [[3, 4, 5, 6], [5, 6, 7, 8]]


def test_trunk_with_a_prompt_is_the_longer_document():
    document = tiny.documents(1, [6, 8], 8, 22)
    trunk = document_trunk(document, (9, 10))
    assert trunk.tokens[:, :2].tolist() == [[9, 10]] * 2
    assert np.array_equal(trunk.tokens[:, 2:], document.tokens)
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
    full = vocabulary(think_open=OPEN, think_close=CLOSE, pad=PAD, bos=BOS, eos=EOS, used=7, size=9)
    assert set(full.not_in_thoughts) == {OPEN, PAD, BOS, EOS, 7, 8}
    assert set(full.not_in_documents) == {OPEN, CLOSE, PAD, BOS, 7, 8}
    assert CLOSE not in full.not_in_thoughts  # it ends a thought
    assert EOS not in full.not_in_documents  # it ends a document
    shared = vocabulary(
        think_open=OPEN, think_close=CLOSE, pad=EOS, bos=None, eos=EOS, used=7, size=9
    )
    assert EOS in shared.not_in_thoughts
    assert EOS not in shared.not_in_documents
