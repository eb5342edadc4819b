"""Bits per byte are those of a slow count, the bound is a bound, and groups add up to the whole."""

import itertools
import math

import jax
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.data.located_text import windows_of
from rlp.engine.method import Method
from rlp.evaluation.measures import text_measures
from rlp.evaluation.measures.counterfactuals import REPLACEMENTS, ScoredThoughts
from rlp.evaluation.measures.given_thoughts import TextScorer
from rlp.evaluation.measures.text_measures import BUCKETS, bound_terms
from rlp.evaluation.measures.token_classes import CLASSES, classify
from tests.support import naive, tiny, words
from tests.support.words import TOKENIZER

CONFIG = tiny.model_config()
METHOD = Method(CONFIG, tiny.rlp_settings(), tiny.words(CONFIG, words.USED))
PARAMS = tiny.params(CONFIG, 4)
DOCUMENTS = words.located(0, [12, 5, 30, 1])
S, H = 4, 3
RANDOM = np.random.default_rng(0)
AFTER = -RANDOM.exponential(2.0, (5, S, H))


def whole_text(length: int):
    scorer = TextScorer(METHOD, make_mesh(devices=jax.devices()[:1]), 16)
    return text_measures.whole_text(scorer, PARAMS, DOCUMENTS, length, TOKENIZER)


def test_bits_per_byte_are_those_of_windows_one_by_one():
    length, nats, sizes = 12, 0.0, 0
    for document in DOCUMENTS:
        sizes += len(document.text.encode())
        for window in windows_of(document, length, TOKENIZER):
            ids = [*TOKENIZER.bos, *document.ids[window.start : window.end].tolist()]
            row = np.array([ids + [0] * (length - len(ids))], np.int32)
            table = naive.predictions(
                PARAMS, row, np.array([len(ids)]), config=CONFIG,
                banned=METHOD.vocabulary.not_in_documents,
            )  # fmt: skip
            for t in range(window.scored, window.end):
                nats -= float(table[0, t - window.start, document.ids[t]])
    found = whole_text(length)
    assert (found.documents, found.tokens, found.bytes, found.unscored) == (4, 48, sizes, 0)
    assert found.bits_per_byte.value == pytest.approx(nats / math.log(2) / sizes, rel=1e-5)
    assert found.loss.value == pytest.approx(nats / 48, rel=1e-5)
    assert found.perplexity.value == pytest.approx(math.exp(nats / 48), rel=1e-5)


def test_without_bos_the_first_token_of_a_document_is_not_scored(monkeypatch):
    monkeypatch.setattr(TOKENIZER, "bos", ())
    found = whole_text(12)
    first = [int(document.bytes_of_tokens()[0]) for document in DOCUMENTS]
    assert (found.tokens, found.unscored) == (44, 4)
    assert found.bytes == sum(len(d.text.encode()) for d in DOCUMENTS) - sum(first)


def test_the_terms_of_the_bound_add_up_to_it():
    expected = np.log(np.exp(AFTER.sum(axis=-1)).mean(axis=-1))
    np.testing.assert_allclose(bound_terms(AFTER).sum(axis=-1), expected)
    np.testing.assert_allclose(bound_terms(AFTER)[:, 0], np.log(np.exp(AFTER[..., 0]).mean(axis=1)))


def test_the_bound_of_one_thought_is_its_log_likelihood():
    np.testing.assert_allclose(bound_terms(AFTER[:, :1]), AFTER[:, 0], atol=1e-12)


def test_the_bound_rises_with_the_thoughts_up_to_the_marginal():
    """Over all draws of S from a finite set of thoughts, each as likely: its expectation rises with
    S, from the mean log-likelihood, and stays below the log of the mean likelihood."""
    marginal = np.log(np.exp(AFTER.sum(axis=-1)).mean(axis=1))
    bounds = []
    for count in (1, 2, 3):
        draws = [
            bound_terms(AFTER[:, list(chosen)]).sum(axis=-1)
            for chosen in itertools.product(range(S), repeat=count)
        ]
        bounds.append(np.mean(draws, axis=0))
    np.testing.assert_allclose(bounds[0], AFTER.sum(axis=-1).mean(axis=1))
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] < marginal).all()


def measured():
    """The measures of invented log-probabilities at five positions, and these."""
    position = np.array([2, 5, 1, 9, 20])
    document = np.array([0, 0, 1, 2, 2])
    scored = ScoredThoughts(
        document=document,
        position=position,
        target=np.stack([DOCUMENTS[d].ids[t : t + H] for d, t in zip(document, position)]),  # noqa: B905
        words=[[()] * S] * 5,
        closed=np.zeros((5, S), bool),
        without=-RANDOM.exponential(2.0, (5, H)),
        after=AFTER,
        given={},
        replaced={name: -RANDOM.exponential(2.0, (5, S, H)) for name in REPLACEMENTS},
    )
    classes = [classify(document) for document in DOCUMENTS]
    sizes = [document.bytes_of_tokens() for document in DOCUMENTS]
    return text_measures.measure(whole_text(12), scored, classes, sizes), scored


def test_tokens_after_the_end_of_a_document_are_in_no_group():
    size = len(DOCUMENTS[0].ids)
    position = np.array([2, size - 1])
    target = np.full((2, H), -1)
    target[0], target[1, 0] = DOCUMENTS[0].ids[2 : 2 + H], DOCUMENTS[0].ids[-1]
    present = target >= 0
    zeroed = lambda x: np.where(present.reshape(2, *[1] * (x.ndim - 2), H), x, 0.0)
    scored = ScoredThoughts(
        document=np.zeros(2, int),
        position=position,
        target=target,
        words=[[()] * S] * 2,
        closed=np.zeros((2, S), bool),
        without=zeroed(-RANDOM.exponential(2.0, (2, H))),
        after=zeroed(AFTER[:2]),
        given={},
        replaced={name: zeroed(-RANDOM.exponential(2.0, (2, S, H))) for name in REPLACEMENTS},
    )
    classes = [classify(document) for document in DOCUMENTS]
    sizes = [document.bytes_of_tokens() for document in DOCUMENTS]
    found = text_measures.measure(whole_text(12), scored, classes, sizes)
    assert found.targets.tokens == H + 1
    assert found.targets.bytes == sizes[0][2 : 2 + H].sum() + sizes[0][-1]
    assert found.targets.loss["none"].value == pytest.approx(-scored.without.sum() / (H + 1))
    for which in ("classes", "buckets"):
        assert sum(group.tokens for group in getattr(found, which)) == H + 1


def test_groups_are_parts_of_all_targets():
    found, scored = measured()
    assert [group.name for group in found.classes] == list(CLASSES)
    assert [group.name for group in found.buckets] == list(BUCKETS)
    assert found.targets.tokens == 5 * H
    for groups in (found.classes, found.buckets):
        some = [group for group in groups if group.tokens]
        assert len(some) > 1
        assert sum(group.tokens for group in some) == found.targets.tokens
        assert sum(group.bytes for group in some) == found.targets.bytes
        for which in ("loss", "gain"):
            for key, whole in getattr(found.targets, which).items():
                parts = [group.tokens * getattr(group, which)[key].value for group in some]
                assert sum(parts) / found.targets.tokens == pytest.approx(whole.value)
    edges = (0, *text_measures.EDGES, math.inf)
    for group, low, high in zip(found.buckets, edges, edges[1:], strict=False):
        losses = -scored.without
        assert group.tokens == ((low <= losses) & (losses < high)).sum()
        assert not group.tokens or low <= group.loss["none"].value < high


def test_gains_and_bits_of_all_targets_are_those_of_a_slow_count():
    found, s = measured()
    assert found.targets.loss["none"].value == pytest.approx(-s.without.mean())
    assert found.targets.loss["mean"].value == pytest.approx(-AFTER.mean())
    bound = np.log(np.exp(AFTER.sum(axis=-1)).mean(axis=-1)).sum()
    assert found.targets.loss["bound"].value == pytest.approx(-bound / (5 * H))
    expected = -bound / math.log(2) / found.targets.bytes
    assert found.targets.bits_per_byte["bound"].value == pytest.approx(expected)
    assert found.targets.gain["mean"].value == pytest.approx(AFTER.mean() - s.without.mean())
    other = s.replaced["other"].mean() - s.without.mean()
    assert found.targets.gain["other"].value == pytest.approx(other)


def test_tables_have_rows_for_the_groups_that_have_tokens():
    found, _ = measured()
    rows = text_measures.group_rows({"base": found, "rlp": found}, "buckets")
    some = ["all", *(group.name for group in found.buckets if group.tokens)]
    assert [row[:2] for row in rows[1:]] == [[n, g] for n in ("base", "rlp") for g in some]
    whole = text_measures.text_rows({"base": found})
    assert len(set(map(len, rows))) == len(set(map(len, whole))) == 1
    assert whole[1][3] == found.text.bits_per_byte.shown()
