"""Given thoughts are scored like the text with the thought written out, in any batch and mesh."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.engine.method import Method
from rlp.evaluation.measures.given_thoughts import TextScorer
from rlp.evaluation.measures.positions import Forked, Positions, choose
from tests.support import naive, tiny, words
from tests.support.words import TOKENIZER

CONFIG = tiny.model_config()
LIMIT, HORIZON, THOUGHTS, LENGTH = 5, 2, 3, 14
PROMPT = (14, 5, 16)
PARAMS = tiny.params(CONFIG, 4)
DOCUMENTS = words.located(0, [12, 5, 30, 9, 3])
KEY = jax.random.key(1)
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
SETTINGS = tiny.rlp_settings(
    prompt=PROMPT, thought_length=LIMIT, horizon=HORIZON, temperature=0.9, objective="jepo"
)
TAGS = {"one token": ((3,), (4,)), "several": ((5, 6), (7, 7))}


def method(tags: str = "one token") -> Method:
    think_open, think_close = TAGS[tags]
    vocabulary = tiny.words(CONFIG, words.USED, think_open, think_close)
    return Method(CONFIG, SETTINGS, vocabulary)


@functools.cache  # so that its programs are compiled once
def scorer(tags: str = "one token", mesh=ONE_DEVICE, branches: int = 12) -> TextScorer:
    return TextScorer(method(tags), mesh, branches)


@functools.cache
def forked() -> Forked:
    found = choose(DOCUMENTS, Positions(2), HORIZON, LENGTH, TOKENIZER, 0)
    assert found is not None
    return found


@functools.cache
def sampled(tags: str = "one token"):
    return scorer(tags).sample(PARAMS, forked().rows, THOUGHTS, KEY)


def written_out(tags: str, given) -> np.ndarray:
    """log p of the targets after given words, from one row per thought, [R, K, M, H] nats."""
    vocabulary, rows = method(tags).vocabulary, forked().rows
    branches = [
        naive.Branch(
            rows.tokens[row].tolist(),
            int(rows.forks[row, k]),
            [*thought, *vocabulary.think_close],
            HORIZON,
        )
        for row, forks in enumerate(given)
        for k, group in enumerate(forks)
        for thought in group
    ]
    width = LENGTH + len(PROMPT) + LIMIT + 4
    lines = naive.write_out(branches, vocabulary, LIMIT + 2, width, PROMPT)
    found = naive.target_logprobs(PARAMS, lines, config=CONFIG, vocabulary=vocabulary)
    return np.asarray(found).reshape(len(given), len(given[0]), len(given[0][0]), HORIZON)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("tags", TAGS)
def test_sampled_thoughts_that_are_given_have_the_evidence_of_their_sampling(tags):
    first = sampled(tags)
    assert 0 < first.closed.mean() < 1
    assert_close(scorer(tags).given(PARAMS, forked().rows, first.words), first.after)
    assert_close(written_out(tags, first.words), first.after)


@pytest.mark.parametrize("tags", TAGS)
def test_an_empty_thought_is_the_text_after_both_tags(tags):
    empty = [[[()] for _ in row] for row in sampled().words]
    found = scorer(tags).given(PARAMS, forked().rows, empty)
    assert found.shape == (len(DOCUMENTS), 2, 1, HORIZON)
    assert_close(found, written_out(tags, empty))


def test_without_a_thought_it_is_the_text_alone():
    rows = forked().rows
    whole = scorer().text(PARAMS, rows)
    index = rows.forks[..., None] + np.arange(HORIZON)
    alone = whole[np.arange(len(whole))[:, None, None], index]
    assert_close(sampled().without, alone)
    target = rows.tokens[np.arange(len(whole))[:, None, None], index]
    assert (sampled().target == target).all()
    table = naive.predictions(
        PARAMS, rows.tokens, rows.segment.sum(axis=1), config=CONFIG,
        banned=method().vocabulary.not_in_documents,
    )  # fmt: skip
    for row, length in enumerate(rows.segment.sum(axis=1)):
        expected = [table[row, t - 1, rows.tokens[row, t]] for t in range(1, length)]
        assert_close(whole[row, :length], [0, *expected])


def test_a_target_ends_with_its_document():
    """It is that of a smaller horizon: one token before the ends of all documents."""
    ends = [len(document.ids) - 1 for document in DOCUMENTS]
    at_the_end = choose(DOCUMENTS, Positions(stride=1), 1, LENGTH, TOKENIZER, 0)
    assert at_the_end is not None
    number = at_the_end.document[:, None]
    last = at_the_end.real & (at_the_end.position == np.array(ends)[number])
    whole, short = scorer(), TextScorer(shorter(), ONE_DEVICE, 12)
    thoughts = [[[(5, 9)] for _ in row] for row in last]
    found = whole.given(PARAMS, at_the_end.rows, thoughts)[last]
    expected = short.given(PARAMS, at_the_end.rows, thoughts)[last]
    assert len(found) == len(DOCUMENTS)
    assert_close(found[..., :1], expected)
    assert (found[..., 1:] == 0).all()


def shorter() -> Method:
    settings = dataclasses.replace(SETTINGS, horizon=1)
    return Method(CONFIG, settings, method().vocabulary)


def test_a_thought_that_is_longer_than_the_limit_is_not_cut():
    with pytest.raises(ValueError, match="broadcast"):
        scorer().given(PARAMS, forked().rows, [[[(5,) * (LIMIT + 1)]] * 2] * len(DOCUMENTS))


def test_the_seed_decides():
    again = scorer().sample(PARAMS, forked().rows, THOUGHTS, KEY)
    assert again.words == sampled().words
    assert (again.after == sampled().after).all()
    assert scorer().sample(PARAMS, forked().rows, THOUGHTS, jax.random.key(2)).words != again.words


@pytest.mark.slow  # other shapes are compiled
@pytest.mark.parametrize(
    ("sizes", "branches"), [((1, 1, 1), 1), ((1, 1, 1), 100), ((2, 2, 2), 12)], ids=str
)
def test_neither_the_batch_nor_the_mesh_matters(sizes, branches):
    count = int(np.prod(sizes))
    mesh = make_mesh(*sizes, devices=jax.devices()[:count])
    other = scorer(mesh=mesh, branches=branches)
    found = other.sample(PARAMS, forked().rows, THOUGHTS, KEY)
    assert found.words == sampled().words
    assert_close(found.after, sampled().after)
    assert_close(found.without, sampled().without)
    assert_close(other.given(PARAMS, forked().rows, found.words), found.after)
    rows = forked().rows
    assert_close(other.text(PARAMS, rows), scorer().text(PARAMS, rows))
