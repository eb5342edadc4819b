"""The documents of the demo: a walker turns eight times; which way does she face?

    <bos> Mia faces north . She turns around left … left . Now she faces north . <eos>

A small transformer cannot follow eight turns in one forward pass (chance is 1 in 4), but a thought
that writes down the heading after every turn makes the prediction easy:

    … Now she faces <think> south east east west north west south north </think> north . <eos>

Some thoughts are musings, which carry no information. The base model thus learns both kinds of
thought, and RLP has something to select. A thought can gain at most log 4 = 1.386 nats here.

Most thoughts come right before the answer; a configurable share is anywhere in the document. Such a
thought lists the heading after each of the turns so far, or is a musing if there was none yet.

A checksum assigns each walk (start and turns) to the training or the held-out set, so that no
held-out document equals a training document, whatever the seed.
"""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from rlp.data.batch import Array, Batch, Problems
from rlp.data.fingerprint import of_settings
from rlp.runtime.fingerprints import Fingerprint
from rlp.tokenizers.word_tokenizer import WordTokenizer

HEADINGS = ("north", "east", "south", "west")
TURNS = {"right": 1, "around": 2, "left": 3}  # quarter turns clockwise
WALKERS = {"Mia": "she", "Ada": "she", "Ida": "she", "Eva": "she",
           "Tom": "he", "Ben": "he", "Max": "he", "Leo": "he"}  # fmt: skip
NUM_TURNS = 8
MUSINGS = (
    "hmm , where is it going now",
    "hmm , so the way is about {heading}",
    "hmm , it may be {heading} or so",
    "hmm , let me think about the turns",
    "hmm , I would say {heading} now",
)
HELD_OUT_ONE_IN = 16  # one walk in 16 is held out
ANSWER_LENGTH = 3  # tokens from the answer to the end of a document: "north . <eos>"


def _words() -> tuple[str, ...]:
    text = "faces turns Now . She He she he " + " ".join((*HEADINGS, *TURNS, *WALKERS))
    musings = " ".join(MUSINGS).replace("{heading}", "")
    return tuple(dict.fromkeys(f"{text} {musings}".split()))


TOKENIZER = WordTokenizer(_words(), "the compass")  # its vocabulary depends on this file alone


class CompassStream:
    """An endless stream of documents; document k is a pure function of (seed, k).

    Args:
      seed: seed of the stream.
      sequence_length: T, tokens per row; the caller checks that documents fit.
      thought_share: share of documents that contain a thought.
      musing_share: share of those thoughts that are musings.
      late_musing_share: the same share, for documents numbered `late_from` and above.
      late_from: number of the first document with `late_musing_share`.
      anywhere_share: share of thoughts that are anywhere after the first word, instead of right
        before the answer.
      held_out: draw from the held-out walks instead of the training walks.
    """

    records_per_epoch: int | None = None

    def __init__(
        self,
        seed: int,
        sequence_length: int,
        *,
        thought_share: float = 0.0,
        musing_share: float = 0.0,
        late_musing_share: float = 0.0,
        late_from: int = 0,
        anywhere_share: float = 0.0,
        held_out: bool = False,
    ):
        self.tokenizer = TOKENIZER
        self.sequence_length = sequence_length
        self._seed = seed
        self._thought_share = thought_share
        self._musing_shares = (musing_share, late_musing_share)
        self._late_from = late_from
        self._anywhere_share = anywhere_share
        self._held_out = held_out

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`. The settings determine the documents, so they are fingerprinted."""
        settings = of_settings(
            seed=self._seed,
            sequence_length=self.sequence_length,
            thought_share=self._thought_share,
            musing_shares=self._musing_shares,
            late_from=self._late_from,
            anywhere_share=self._anywhere_share,
        )
        return {"data.compass, held out" if self._held_out else "data.compass": settings}

    def batch(self, first: int, size: int) -> Batch:
        """Return documents first … first + size - 1, one per row, with the fork at the answer."""
        tokens = np.full((size, self.sequence_length), self.tokenizer.pad, np.int32)
        length = np.zeros((size, 1), np.int32)
        forks = np.zeros((size, 1), np.int32)
        for row in range(size):
            ids, fork = self._document(first + row)
            tokens[row, : len(ids)] = ids
            length[row], forks[row] = len(ids), fork
        positions = np.broadcast_to(np.arange(self.sequence_length, dtype=np.int32), tokens.shape)
        inside = positions < length
        return Batch(
            tokens=tokens,
            segment=inside.astype(np.int32),
            position=np.where(inside, positions, 0).astype(np.int32),
            index=np.arange(first, first + size, dtype=np.int32),
            forks=forks,
        )

    def _document(self, number: int) -> tuple[list[int], int]:
        """Return the token ids of document `number` and the position of its fork: where its thought
        is, or else its answer."""
        rng = np.random.default_rng((self._seed, int(self._held_out), number))
        while True:
            start = int(rng.integers(len(HEADINGS)))
            turns = [list(TURNS)[i] for i in rng.integers(len(TURNS), size=NUM_TURNS)]
            if is_held_out(start, turns) == self._held_out:
                break
        name = list(WALKERS)[rng.integers(len(WALKERS))]
        headings = walk(start, turns)
        pronoun = WALKERS[name]
        begin = f"<bos> {name} faces {HEADINGS[start]} . {pronoun.capitalize()} turns".split()
        text = [*begin, *turns, ".", "Now", pronoun, "faces", headings[-1], ".", "<eos>"]
        fork = len(text) - ANSWER_LENGTH
        thought: list[str] = []
        if rng.random() < self._thought_share:
            musing_share = self._musing_shares[number >= self._late_from]
            is_musing = rng.random() < musing_share
            turns_so_far = NUM_TURNS
            # With a share of 0 no random number is drawn, so that later draws do not change.
            if self._anywhere_share and rng.random() < self._anywhere_share:
                fork = int(rng.integers(1, fork + 1))
                turns_so_far = min(max(fork - len(begin), 0), NUM_TURNS)
            thought = headings[:turns_so_far]
            if is_musing or not thought:
                heading = HEADINGS[rng.integers(len(HEADINGS))]
                thought = MUSINGS[rng.integers(len(MUSINGS))].format(heading=heading).split()
            thought = ["<think>", *thought, "</think>"]
        return self.tokenizer.encode(" ".join([*text[:fork], *thought, *text[fork:]])), fork


class CompassPairs:
    """Walks as prompts with responses: the loss covers each document from its fork on, that is its
    thought and its answer."""

    records_per_epoch: int | None = None

    def __init__(self, walks: CompassStream):
        self._walks = walks

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        return self._walks.fingerprint()

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`."""
        rows = self._walks.batch(first, size)
        in_loss = (np.asarray(rows.segment) > 0) & (rows.position >= np.asarray(rows.forks))
        return dataclasses.replace(rows, loss_mask=in_loss)


class CompassProblems:
    """Walks as problems: the prompt is the document up to its fork, the gold answer its heading and
    full stop."""

    records_per_epoch: int | None = None

    def __init__(self, walks: CompassStream):
        self._walks = walks

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        return self._walks.fingerprint()

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`."""
        rows = self._walks.batch(first, size)
        in_prompt = (np.asarray(rows.segment) > 0) & (rows.position < np.asarray(rows.forks))

        def prompt_only(x: Array, fill: int) -> np.ndarray:
            return np.where(in_prompt, np.asarray(x), fill).astype(np.int32)

        return dataclasses.replace(
            rows,
            tokens=prompt_only(rows.tokens, TOKENIZER.pad),
            segment=prompt_only(rows.segment, 0),
            position=prompt_only(rows.position, 0),
        )

    def answer(self, record: int) -> str:
        """Return the gold answer to the problem of a record."""
        row = self._walks.batch(record, 1)
        start = int(np.asarray(row.forks)[0, 0])
        ids = np.asarray(row.tokens)[0, start : int(np.asarray(row.segment)[0].sum()) - 1]
        return TOKENIZER.decode(ids.tolist())

    def beginning(self, count: int) -> Problems:
        """Return the first `count` records with their gold answers."""
        return Problems(self.batch(0, count), tuple(self.answer(k) for k in range(count)))


def walk(start: int, turns: Sequence[str]) -> list[str]:
    """Return the heading after each turn, starting from heading number `start`."""
    steps = np.cumsum([start] + [TURNS[turn] for turn in turns])[1:]
    return [HEADINGS[step % len(HEADINGS)] for step in steps]


def is_held_out(start: int, turns: Sequence[str]) -> bool:
    """Return whether this walk belongs to the held-out set."""
    return zlib.crc32(f"{start} {' '.join(turns)}".encode()) % HELD_OUT_ONE_IN == 0


DOCUMENT_LENGTH = 14 + NUM_TURNS  # tokens of a document without a thought
THOUGHT_LENGTH = 2 + NUM_TURNS  # maximum tokens of a thought, tags included
