"""Contexts that begin with the same tokens are read once, and score as contexts of their own."""

import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.evaluation.options import option_programs
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.questions import Question
from rlp.evaluation.options.shared_contexts import LEAST_SHARED, shared_rows
from tests.rlp.evaluation.options.option_scores_test import (
    CONFIG,
    WINDOWED,
    assert_same,
    ids,
    scorer,
)


def few_shot(seed: int, shared: int, *questions: tuple[int, ...]) -> list[Question]:
    """Return questions after the same tokens: tokens of the rest, and of each option."""
    examples = ids(seed, shared)
    return [
        Question(
            examples + ids(seed + 7 * i + 1, rest),
            tuple(ids(seed + 100 * i + o, n) for o, n in enumerate(options)),
        )
        for i, (rest, *options) in enumerate(questions)
    ]


# Options of one token and of several; rests of one token and on both sides of a size; a question
# whose context is the beginning of another; one that shares too little.
LETTERS = few_shot(1, 90, (1, 1, 1, 1), (20, 1, 1), (33, 1, 1, 1, 1), (5, 1, 1))
TEXTS = few_shot(2, 120, (4, 3, 1, 5), (9, 2, 9), (3, 1, 1))
BEGINNING = [Question(LETTERS[1].context[:-3], ((5,), (6, 7)))]
OTHERS = few_shot(3, LEAST_SHARED - 1, (3, 1, 1), (4, 1, 1))
ALL = [*LETTERS[:2], *TEXTS, *OTHERS, *BEGINNING, *LETTERS[2:]]


def one_by_one(questions, **options):
    """Score each question in a call of its own, in which nothing is shared."""
    ours = scorer(**options)
    return [ours.score([question])[0] for question in questions]


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (CONFIG, {}),
        (CONFIG, {"batch_tokens": 160}),  # one or two branches a row
        (CONFIG, {"batch_tokens": 1}),  # no branch fits
        pytest.param(CONFIG, {"mesh": make_mesh(2, 2, 2)}, marks=pytest.mark.slow),
        pytest.param(WINDOWED, {}, marks=pytest.mark.slow),
    ],
    ids=["plain", "small", "none", "2x2x2", "window"],
)
def test_shared_contexts_change_no_score(config, changes):
    order = np.random.default_rng(1).permutation(len(ALL))
    reported = {}
    ours = scorer(config, **changes)
    found = ours.score([ALL[i] for i in order], lambda i, scores: reported.update({i: scores}))
    assert [reported[i] for i in range(len(ALL))] == found
    for i, scores, expected in zip(
        order, found, one_by_one([ALL[i] for i in order], config=config), strict=True
    ):
        assert_same(scores, expected)
        assert len(scores) == len(ALL[i].options)


def test_every_question_is_alone_or_in_rows_with_all_of_its_options():
    rows, alone = shared_rows(ALL, 2**13)
    assert [ALL[i] for i in alone] == OTHERS
    asked = [(b.question, o) for row in rows for b in row.branches for o in b.options]
    assert sorted(asked) == sorted(
        (i, o) for i, one in enumerate(ALL) if i not in alone for o in range(len(one.options))
    )
    for row in rows:
        for branch in row.branches:
            question = ALL[branch.question]
            assert row.prefix + branch.tokens[: branch.start] == question.context
            after = branch.tokens[branch.start :]
            assert all(question.options[o][:-1] == after for o in branch.options)
            assert branch.start > 0


def test_what_questions_share_is_read_once(monkeypatch):
    read = []
    program = option_programs.score_branches

    def spy(self, called, network, *arrays, more=()):
        if called is program:
            read.append(arrays)
        return run(self, called, network, *arrays, more=more)

    run = OptionScorer.run
    monkeypatch.setattr(OptionScorer, "run", spy)
    scorer().score(LETTERS)
    ((prefix, length, _, size, *_),) = read
    assert prefix.shape[0] == 1
    assert length.tolist() == [90]
    assert sorted(size[size > 0].tolist()) == [1, 5, 20, 33]


@pytest.mark.parametrize(
    "questions",
    [
        few_shot(4, 90, (200, 1, 1), (190, 1, 1)),  # less than half of the contexts
        few_shot(5, 90, (60, *[2] * 16), (60, *[2] * 16)),  # branches repeat more than they save
        LETTERS[:1],
        [],
    ],
    ids=["half", "repeated", "one", "none"],
)
def test_nothing_is_shared_if_that_saves_nothing(questions):
    assert shared_rows(questions, 2**13) == ([], list(range(len(questions))))
