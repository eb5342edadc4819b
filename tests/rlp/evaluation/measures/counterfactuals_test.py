"""Each replacement is what it is said to be, and the numbers are those of a slow count."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.engine.method import Method
from rlp.evaluation.measures import counterfactuals
from rlp.evaluation.measures.counterfactuals import REPLACEMENTS, ScoredThoughts
from rlp.evaluation.measures.given_thoughts import Sampled, TextScorer
from rlp.evaluation.measures.positions import FORKS, Positions, choose
from rlp.runtime.errors import UserError
from tests.support import tiny, words
from tests.support.words import TOKENIZER

CONFIG = tiny.model_config()
SETTINGS = tiny.rlp_settings(thought_length=6, horizon=2)
METHOD = Method(CONFIG, SETTINGS, tiny.words(CONFIG, words.USED))
S = 3


class Recorder:
    """A scorer whose thoughts say where they were sampled, and which counts their words."""

    def sample(self, params, rows, thoughts, key, watch):
        shape = (*rows.forks.shape, thoughts)
        line = lambda r, k, s: (5 + r, 5 + k, 5 + s, *range(5, 5 + s))
        lines = [[[line(r, k, s) for s in range(thoughts)] for k in range(shape[1])]
                 for r in range(shape[0])]  # fmt: skip
        zeros = np.zeros((*shape, 2), np.float32)
        return Sampled(lines, np.zeros(shape, bool), zeros, zeros[:, :, 0], zeros[:, :, 0])

    def given(self, params, rows, given, watch):
        return np.array([[[[len(t), sum(t)] for t in fork] for fork in row] for row in given])


def scored(positions: int, lengths: list[int]) -> ScoredThoughts:
    documents = words.located(0, lengths)
    forked = choose(documents, Positions(positions), 2, 24, TOKENIZER, 0)
    return counterfactuals.score(Recorder(), None, forked, S, TOKENIZER, 5)


def test_replacements_are_what_they_say():
    found = scored(FORKS + 3, [30, 8, 30])  # the second document has fewer positions
    by_document = Counter(found.document.tolist())
    assert by_document == {0: FORKS + 3, 1: 6, 2: FORKS + 3}
    first = {number: found.document.tolist().index(number) for number in by_document}
    for p, group in enumerate(found.words):
        number = int(found.document[p])
        following = (number + 1) % 3
        place = first[following] + (p - first[number]) % by_document[following]
        assert found.given["other"][p] == found.words[place]
        assert found.given["empty"][p] == [()]
        for s, ids in enumerate(group):
            assert found.given["half"][p][s] == ids[: len(ids) // 2]
            assert Counter(found.given["shuffled"][p][s]) == Counter(ids)
    assert any(found.given["shuffled"][p] != group for p, group in enumerate(found.words))
    for name in REPLACEMENTS:
        expected = [[[len(t), sum(t)] for t in group] for group in found.given[name]]
        assert found.replaced[name].tolist() == expected


def test_shuffling_depends_on_the_place_and_not_on_the_other_documents():
    some, more = scored(2, [30, 8, 30]), scored(2, [30, 8, 30, 20])
    assert more.given["shuffled"][: len(some.words)] == some.given["shuffled"]


def test_one_document_has_no_other():
    with pytest.raises(UserError, match="one document, so there is no other one"):
        scored(2, [30])


def invented() -> ScoredThoughts:
    """Two positions in each of three documents; thoughts and log-probabilities are random."""
    random = np.random.default_rng(0)
    normal = lambda *shape: random.normal(size=shape).astype(np.float32)
    line = lambda: tuple(random.integers(5, words.USED, random.integers(1, 7)).tolist())
    lines = [[line() for _ in range(S)] for _ in range(6)]
    return ScoredThoughts(
        document=np.array([0, 0, 4, 4, 7, 7]),
        position=np.array([3, 5, 2, 9, 4, 6]),
        target=np.array([lines[p][0][:1] for p in range(5)] + [[21]]),
        words=lines,
        closed=random.random((6, S)) < 0.5,
        without=normal(6, 1),
        after=normal(6, S, 1),
        given={name: [line[::-1] for line in lines] for name in REPLACEMENTS},
        replaced={name: normal(6, 1 if name == "empty" else S, 1) for name in REPLACEMENTS},
    )


def test_the_summary_is_that_of_a_slow_count():
    s = invented()
    found = counterfactuals.summarize(s, TOKENIZER)
    thoughts = [(p, i) for p in range(6) for i in range(S)]
    gain = {(p, i): s.after[p, i, 0] - s.without[p, 0] for p, i in thoughts}
    assert found.gain.value == pytest.approx(np.mean(list(gain.values())), rel=1e-5)
    of_documents = np.array(list(gain.values())).reshape(3, -1).mean(axis=1)
    assert found.gain.error == pytest.approx(of_documents.std(ddof=1) / 3**0.5, rel=1e-5)
    for name in REPLACEMENTS:
        other = {(p, i): s.replaced[name][p, i % s.replaced[name].shape[1], 0] - s.without[p, 0]
                 for p, i in thoughts}  # fmt: skip
        assert found.replaced[name].value == pytest.approx(np.mean(list(other.values())), rel=1e-5)
        lost = [gain[at] - other[at] for at in thoughts]
        assert found.lost[name].value == pytest.approx(np.mean(lost), rel=1e-5)
    named = {at: s.target[at[0]][0] in s.words[at[0]][at[1]] for at in thoughts}
    assert 0 < sum(named.values()) < len(named)
    assert found.named.value == pytest.approx(np.mean(list(named.values())))
    unnamed = [gain[at] for at in thoughts if not named[at]]
    assert found.gain_unnamed.value == pytest.approx(np.mean(unnamed), rel=1e-5)
    assert found.length.value == pytest.approx(np.mean([len(s.words[p][i]) for p, i in thoughts]))
    assert found.closed.value == pytest.approx(s.closed.mean())
    others = [s.target[p][0] in s.given["other"][p][i] for p, i in thoughts]
    assert found.named_by_other.value == pytest.approx(np.mean(others))
    same = [s.given["shuffled"][p][i] == s.words[p][i] for p, i in thoughts]
    assert 0 < sum(same) < len(same)
    assert found.unchanged.value == pytest.approx(np.mean(same))
    assert (found.positions, found.documents, found.thoughts, found.horizon) == (6, 3, S, 1)


def test_a_network_without_finite_logits_has_no_gain():
    broken = invented()
    broken.after[2, 1] = np.nan
    found = counterfactuals.summarize(broken, TOKENIZER)
    assert np.isnan([found.gain.value, *(lost.value for lost in found.lost.values())]).all()
    assert np.isfinite([found.named.value, *(r.value for r in found.replaced.values())]).all()


def test_tables_have_a_row_per_network():
    summary = counterfactuals.summarize(invented(), TOKENIZER)
    measured = {"base": summary, "rlp": dataclasses.replace(summary, gain=summary.length)}
    for rows in (
        counterfactuals.gain_rows(measured),
        counterfactuals.lost_rows(measured),
        counterfactuals.shape_rows(measured),
    ):
        assert [row[0] for row in rows] == ["checkpoint", "base", "rlp"]
        assert len(set(map(len, rows))) == 1
    gain = counterfactuals.gain_rows(measured)
    assert gain[0][3:] == ["real", *REPLACEMENTS]
    assert gain[1][3] == summary.gain.shown("+.3f")
    assert gain[2][3] == summary.length.shown("+.3f")


def test_with_a_network_the_same_thoughts_have_the_same_evidence():
    """Words in another order are another thought, and the end of it matters."""
    documents = words.located(1, [20, 20, 20])
    forked = choose(documents, Positions(2), 2, 16, TOKENIZER, 0)
    scorer = TextScorer(METHOD, make_mesh(devices=jax.devices()[:1]), 12)
    found = counterfactuals.score(scorer, tiny.params(CONFIG, 4), forked, S, TOKENIZER, 5)
    checked = 0
    for name in ("shuffled", "other", "half"):
        for p, s in np.ndindex(*found.closed.shape):
            gap = np.abs(found.replaced[name][p, s] - found.after[p, s]).max()
            if found.given[name][p][s] == found.words[p][s]:
                assert gap < 1e-4
                checked += 1
            else:
                assert gap > 1e-4
    assert checked
