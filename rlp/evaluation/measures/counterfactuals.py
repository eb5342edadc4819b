"""Is it reasoning? Gains of thoughts at held-out positions, and of what replaces them.

The gain of a thought is log p(target | thought) - log p(target | none), in nats over the H tokens
of the target, with the same network. Each replacement takes one thing away:

    empty      the opening and the closing tag only: what the tags alone do
    shuffled   the words of the thought in a random order: what its words do without their order
    other      the thought of the next document at the same number of position and of thought: what
               any thought of this network does, whatever the text says
    half       the first half of the thought's tokens: what its end adds

If thoughts are reasoning about their text, replacements lose gain: a gain that `other` keeps does
not come from the text, and one that `shuffled` keeps does not need an order.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from models.transformer import Params
from rlp.evaluation.measures.estimates import Estimate, mean
from rlp.evaluation.measures.given_thoughts import TextScorer, Words
from rlp.evaluation.measures.positions import Forked
from rlp.evaluation.measures.thought_texts import distinct, names, repetition, shuffled
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

REPLACEMENTS = ("empty", "shuffled", "other", "half")


@dataclasses.dataclass(frozen=True)
class ScoredThoughts:
    """Thoughts at P positions, and log-probabilities of the targets after them and replacements.

    Attributes:
      document: int [P], number of the document of each position.
      position: int [P], position in the document, tokens.
      target: int [P, H], ids; -1 after the end of a document, where log-probabilities are 0.
      words: S thoughts at each position, [P][S].
      closed: bool [P, S].
      without: float [P, H] nats, without a thought.
      after: float [P, S, H] nats, after the thoughts.
      given: by the name of the replacement, its words at each position, [P][S or 1].
      replaced: by the name of the replacement, float [P, S or 1, H] nats, after it.
    """

    document: np.ndarray
    position: np.ndarray
    target: np.ndarray
    words: list[list[Words]]
    closed: np.ndarray
    without: np.ndarray
    after: np.ndarray
    given: dict[str, list[list[Words]]]
    replaced: dict[str, np.ndarray]

    def target_texts(self, tokenizer: Tokenizer) -> list[str]:
        """Return the texts of the targets."""
        return [tokenizer.decode([i for i in ids if i >= 0]) for ids in self.target.tolist()]


@dataclasses.dataclass(frozen=True)
class Counterfactuals:
    """The counterfactuals of one network.

    Attributes:
      positions, documents: numbers of them.
      thoughts: S, per position.
      horizon: H, most tokens of a target.
      gain: of the real thoughts, nats per target.
      replaced: gain of each replacement.
      lost: gain of the real thought minus that of its replacement, paired.
      length: tokens of a thought without its tags.
      closed: share of thoughts that the network closed.
      named: share of thoughts that contain the text of their target (`thought_texts.names`), among
        those with a target that has letters or digits.
      named_by_other: the same share for the `other` thoughts: what chance gives.
      gain_unnamed: gain of the real thoughts that do not name their target.
      repeated: mean share of repeated 4-grams of words, of the thoughts with at least 4 words.
      distinct_1, distinct_2: different words and pairs of words over the words of all thoughts.
      unchanged: share of thoughts that the shuffling left as they were, such as those of one word.
    """

    positions: int
    documents: int
    thoughts: int
    horizon: int
    gain: Estimate
    replaced: dict[str, Estimate]
    lost: dict[str, Estimate]
    length: Estimate
    closed: Estimate
    named: Estimate
    named_by_other: Estimate
    gain_unnamed: Estimate
    repeated: Estimate
    distinct_1: float
    distinct_2: float
    unchanged: Estimate


def score(
    scorer: TextScorer,
    params: Params,
    forked: Forked,
    thoughts: int,
    tokenizer: Tokenizer,
    seed: int,
    watch: Callable[[str], Callable] = lambda label: iter,
) -> ScoredThoughts:
    """Sample thoughts at positions, and score the targets after them and after replacements.

    Args:
      scorer: of the network.
      params: of the network.
      forked: the positions.
      thoughts: S, per position.
      tokenizer: of the network.
      seed: of the sampling and of the shuffling.
      watch: from the label of a pass to what wraps its list of batches.

    Raises:
      UserError: If the positions are all in one document.
    """
    other = _others(forked)
    sampled = scorer.sample(params, forked.rows, thoughts, jax.random.key(seed), watch("thoughts"))
    real = forked.real
    words = [
        ids
        for row, is_real in zip(sampled.words, real, strict=True)
        for ids, keep in zip(row, is_real, strict=True)
        if keep
    ]
    document, position = np.repeat(forked.document, real.sum(axis=1)), forked.position[real]
    places = list(zip(document.tolist(), position.tolist(), strict=True))
    shuffle = lambda ids, *at: shuffled(ids, tokenizer, (seed, *at))
    replacements: dict[str, list[list[Words]]] = {
        "empty": [[()] for _ in words],
        "shuffled": [
            [shuffle(ids, *place, s) for s, ids in enumerate(group)]
            for place, group in zip(places, words, strict=True)
        ],
        "other": [words[i] for i in other],
        "half": [[ids[: len(ids) // 2] for ids in group] for group in words],
    }
    replaced = {
        name: scorer.given(
            params, forked.rows, [[given[i] for i in row] for row in forked.number], watch(name)
        )[real]
        for name, given in replacements.items()
    }
    return ScoredThoughts(
        document, position, sampled.target[real], words, sampled.closed[real],
        sampled.without[real], sampled.after[real], replacements, replaced,
    )  # fmt: skip


def _others(forked: Forked) -> list[int]:
    """Return for every position one of the next document, with the same place among its own."""
    document = np.repeat(forked.document, forked.real.sum(axis=1))
    numbers, first, counts = np.unique(document, return_index=True, return_counts=True)
    if len(numbers) < 2:
        raise UserError(
            "all positions are in one document, so there is no other one to take thoughts from; "
            "measure at least two documents (a .txt file is one, unless it is split)"
        )
    following = np.roll(np.arange(len(numbers)), -1)
    own = np.searchsorted(numbers, document)
    place = np.arange(len(document)) - first[own]
    return (first[following[own]] + place % counts[following[own]]).tolist()


def summarize(scored: ScoredThoughts, tokenizer: Tokenizer) -> Counterfactuals:
    """Return the counterfactuals of scored thoughts; the tokenizer of their network decodes them.

    All standard errors are over documents.
    """
    shape = scored.closed.shape
    documents = np.repeat(scored.document, shape[1])

    def of_all(values: Any, chosen: np.ndarray | None = None) -> Estimate:
        """Return the mean over all thoughts [P, S], or over the chosen ones."""
        flat = np.broadcast_to(np.asarray(values, np.float64), shape).ravel()
        kept = slice(None) if chosen is None else chosen.ravel()
        return mean(flat[kept], documents[kept])

    def of_known(values: np.ndarray) -> Estimate:
        return of_all(values, ~np.isnan(values))

    def naming(thoughts: Sequence[Sequence[str]]) -> np.ndarray:
        """Return whether thoughts name their targets; nan if there is nothing to name."""
        rows = zip(thoughts, targets, strict=True)
        return np.array([[_number(names(t, target)) for t in group] for group, target in rows])

    without = scored.without.sum(axis=-1)[:, None]
    real = scored.after.sum(axis=-1) - without
    gains = {name: after.sum(axis=-1) - without for name, after in scored.replaced.items()}
    decode = lambda groups: [[tokenizer.decode(ids) for ids in group] for group in groups]
    texts, targets = decode(scored.words), scored.target_texts(tokenizer)
    words = [[text.split() for text in group] for group in texts]
    shuffled_words = zip(scored.given["shuffled"], scored.words, strict=True)
    unchanged = [[a == b for a, b in zip(*pair, strict=True)] for pair in shuffled_words]
    named = naming(texts)
    repeated = np.array([[_number(repetition(text)) for text in group] for group in words])
    return Counterfactuals(
        positions=shape[0],
        documents=len(np.unique(scored.document)),
        thoughts=shape[1],
        horizon=scored.target.shape[1],
        gain=of_all(real),
        replaced={name: of_all(gain) for name, gain in gains.items()},
        lost={name: of_all(real - gain) for name, gain in gains.items()},
        length=of_all([[len(ids) for ids in group] for group in scored.words]),
        closed=of_all(scored.closed),
        named=of_known(named),
        named_by_other=of_known(naming(decode(scored.given["other"]))),
        gain_unnamed=of_all(real, named == 0),
        repeated=of_known(repeated),
        distinct_1=distinct([text for group in words for text in group], 1),
        distinct_2=distinct([text for group in words for text in group], 2),
        unchanged=of_all(unchanged),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def gain_rows(measured: Mapping[str, Counterfactuals]) -> list[list[str]]:
    """Return the gains as rows of strings, a row per network and a column per counterfactual; the
    first row is the heading."""
    heading = ["checkpoint", "positions", "documents", "real", *REPLACEMENTS]
    return [heading] + [
        [name, str(m.positions), str(m.documents), m.gain.shown("+.3f"),
         *(m.replaced[r].shown("+.3f") for r in REPLACEMENTS)]
        for name, m in measured.items()
    ]  # fmt: skip


def lost_rows(measured: Mapping[str, Counterfactuals]) -> list[list[str]]:
    """Return what the real thought gains over each replacement, as `gain_rows` does."""
    heading = ["checkpoint", *(f"real - {name}" for name in REPLACEMENTS), "real, unnamed"]
    return [heading] + [
        [name, *(m.lost[r].shown("+.3f") for r in REPLACEMENTS), m.gain_unnamed.shown("+.3f")]
        for name, m in measured.items()
    ]


def shape_rows(measured: Mapping[str, Counterfactuals]) -> list[list[str]]:
    """Return what the thoughts look like, as `gain_rows` does."""
    heading = ["checkpoint", "tokens", "closed", "names target", "other's names it", "rep-4",
               "distinct-1", "distinct-2", "unchanged by shuffling"]  # fmt: skip
    return [heading] + [
        [name, m.length.shown(".1f"), m.closed.shown(), m.named.shown(), m.named_by_other.shown(),
         m.repeated.shown(), f"{m.distinct_1:.3f}", f"{m.distinct_2:.3f}", m.unchanged.shown()]
        for name, m in measured.items()
    ]  # fmt: skip
