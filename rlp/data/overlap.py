"""N-grams that texts share with the problems of task files.

    words      lower-cased, punctuation removed, split at white space: GPT-3's measure (arXiv
               2005.14165, appendix C), as the decontamination code of lm-evaluation-harness has it
    numbers    words, and whole numbers with the sign before each; an n-gram counts only if a number
               is in it, so that problems which differ in all their numbers have nothing in common
    templates  the same with all numbers alike, if most of an n-gram are words: problems that differ
               only in their numbers

An n-gram never extends from one field of a problem to the next. Memory grows with the problems, not
with the texts: their n-grams are arrays of hashes, and a hit is compared token by token.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

SIZE = 13  # tokens of an n-gram, as in GPT-3
_PIECE = 1 << 20  # characters of a text that are split at a time
_UNKNOWN, _NUMBER = 0, 1  # ids of a token and of a number that no problem has
_FACTOR = 0x9E3779B97F4A7C15  # of the hashes, which are polynomials modulo 2^64
_PUNCTUATION = re.compile(r"[^\w\s]+|_+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"[^\W\d_]+|(?:[-−–+*/^=×÷·]\s*)?\d+(?:\.\d+)?")
_SIGNS = frozenset("-−–+*/^=×÷·")
_SPACE = re.compile(r"\s+")
_CUT = re.compile(r"\w(?=\s)")  # no token extends across such a place


def words(text: str) -> list[str]:
    """Return the words of a text: "It's 3.50 $" has its and 350."""
    return _PUNCTUATION.sub("", text.lower()).split()


def numbers_and_words(text: str) -> list[str]:
    """Return words, and numbers with the sign of arithmetic before each: "- 1,000.5 apples" has
    -1000.5 and apples."""
    tokens = _TOKEN.findall(_THOUSANDS.sub("", text.lower()))
    return [_SPACE.sub("", token) if token[0] in _SIGNS else token for token in tokens]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an overlap is.

    Attributes:
      split: splits a text into tokens.
      needs_number: an n-gram counts only if it contains a number.
      masked: all numbers are the same token, and an n-gram counts only if most tokens are words (a
        list of numbers would match any other).
    """

    split: Callable[[str], list[str]]
    needs_number: bool = False
    masked: bool = False


KINDS = {
    "words": Kind(words),
    "numbers": Kind(numbers_and_words, needs_number=True),
    "templates": Kind(numbers_and_words, needs_number=True, masked=True),
}
COPIES = ("words", "numbers")  # the kinds of texts that contain a problem itself


class Overlaps:
    """The n-grams of some problems, which are looked up in texts."""

    def __init__(
        self,
        problems: Iterable[Iterable[str]],
        kinds: Sequence[str] = tuple(KINDS),
        size: int = SIZE,
        piece: int = _PIECE,
    ) -> None:
        """Index the n-grams of problems, which are read once.

        Args:
          problems: the texts of each problem.
          kinds: names in `KINDS`.
          size: tokens of an n-gram.
          piece: characters of a text that are split at a time.
        """
        self._kinds = {name: KINDS[name] for name in kinds}
        self._piece, self._size = piece, size
        self._vocabularies = {kind.split: _Vocabulary() for kind in self._kinds.values()}
        for texts in problems:
            texts = list(texts)
            for split, vocabulary in self._vocabularies.items():
                vocabulary.learn([split(text) for text in texts])
        self._are_numbers = {split: v.are_numbers() for split, v in self._vocabularies.items()}
        self._are_words = {split: v.are_words() for split, v in self._vocabularies.items()}
        self._indexes = {}
        for name, kind in self._kinds.items():
            required = [(self._are_numbers[kind.split], 1)] if kind.needs_number else []
            if kind.masked:
                required.append((self._are_words[kind.split], size // 2 + 1))
            ids, bounds = self._vocabularies[kind.split].problems()
            self._indexes[name] = _Index(self._of_kind(kind, ids), bounds, required, size)

    def find(self, text: str) -> dict[str, np.ndarray]:
        """Return the numbers of the problems that share an n-gram with a text, ascending, by the
        kind of the overlap; kinds without any are left out."""
        found: dict[str, list[np.ndarray]] = {}
        rest = {split: np.zeros(0, np.int32) for split in self._vocabularies}
        for piece in _pieces(text, self._piece):
            for split, vocabulary in self._vocabularies.items():
                ids = np.concatenate([rest[split], vocabulary.known(split(piece))])
                rest[split] = ids[len(ids) - min(len(ids), self._size - 1) :]
                for name, kind in self._kinds.items():
                    if kind.split is split:
                        hits = self._indexes[name].problems_in(self._of_kind(kind, ids))
                        if len(hits):
                            found.setdefault(name, []).append(hits)
        return {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}

    def comparable(self, kind: str) -> np.ndarray:
        """Return the numbers of the problems that have an n-gram of a kind, ascending; others are
        too short to be found."""
        return np.unique(self._indexes[kind].problem)

    def _of_kind(self, kind: Kind, ids: np.ndarray) -> np.ndarray:
        """Return the ids of tokens as a kind compares them."""
        if not kind.masked:
            return ids
        return np.where(self._are_numbers[kind.split][ids], np.int32(_NUMBER), ids)


class _Vocabulary(dict[str, int]):
    """The ids of the tokens of problems. A token of a text that they lack is `_UNKNOWN`, or
    `_NUMBER` if it is a number."""

    def __missing__(self, token: str) -> int:
        return _NUMBER if token[-1].isdecimal() else _UNKNOWN

    def __init__(self) -> None:
        super().__init__()
        self._learned: list[np.ndarray] = []

    def learn(self, texts: Sequence[Sequence[str]]) -> None:
        """Add the tokens of the texts of a problem."""
        first = _NUMBER + 1
        ids: list[int] = []
        for tokens in texts:
            ids += [self.setdefault(token, first + len(self)) for token in tokens]
            ids.append(_UNKNOWN)
        self._learned.append(np.array(ids, np.int32))

    def problems(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the problems so far, int32, with an unknown one after each text, and
        the first one of each problem, int64 [problems + 1]."""
        lengths = [0, *map(len, self._learned)]
        return np.concatenate([np.zeros(0, np.int32), *self._learned]), np.cumsum(lengths)

    def known(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the ids of the tokens of a text, int32."""
        return np.array(list(map(self.__getitem__, tokens)), np.int32)

    def are_numbers(self) -> np.ndarray:
        """Return for each id whether it is a number, bool [ids]."""
        return np.array([False, True, *(token[-1].isdecimal() for token in self)])

    def are_words(self) -> np.ndarray:
        """Return for each id whether it is a known word, bool [ids]."""
        return np.array([False, False, *(not token[-1].isdecimal() for token in self)])


class _Index:
    """The n-grams of one kind.

    Attributes:
      problem: number of the problem of each n-gram, in the order of their hashes.
    """

    def __init__(
        self,
        ids: np.ndarray,
        bounds: np.ndarray,
        required: Sequence[tuple[np.ndarray, int]],
        size: int,
    ) -> None:
        """Hash all n-grams.

        Args:
          ids: int32, the tokens of all problems, with an unknown one after each text.
          bounds: int64 [problems + 1], the first token of each problem and the end.
          required: flags of ids, bool [ids], with the number of flagged tokens that an n-gram must
            have to count.
          size: tokens of an n-gram.
        """
        self._ids, self._required, self._size = ids, required, size
        self._powers = np.array([pow(_FACTOR, n, 2**64) for n in range(size)], np.uint64)
        starts = self._starts(ids)
        hashes = self._hashes(self._grams(ids, starts))
        order = np.argsort(hashes, kind="stable")
        self._sorted, self._start = hashes[order], starts[order]
        self.problem = np.searchsorted(bounds, self._start, side="right") - 1

    def problems_in(self, ids: np.ndarray) -> np.ndarray:
        """Return the numbers of the problems that share an n-gram with these tokens, ascending."""
        starts = self._starts(ids)
        if not len(starts) or not len(self._sorted):
            return np.zeros(0, np.int64)
        grams = self._grams(ids, starts)
        hashes = self._hashes(grams)
        first = np.searchsorted(self._sorted, hashes)
        may_occur = self._sorted[np.minimum(first, len(self._sorted) - 1)] == hashes
        if not may_occur.any():
            return np.zeros(0, np.int64)
        grams = grams[may_occur]
        hashes, where = np.unique(hashes[may_occur], return_index=True)
        first = np.searchsorted(self._sorted, hashes, side="left")
        counts = np.searchsorted(self._sorted, hashes, side="right") - first
        entries = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        same = self._grams(self._ids, self._start[entries]) == np.repeat(grams[where], counts, 0)
        return np.unique(self.problem[entries[same.all(axis=1)]])

    def _starts(self, ids: np.ndarray) -> np.ndarray:
        """Return where n-grams that count begin; all of their tokens are known."""
        starts = np.flatnonzero(self._in_windows(ids != _UNKNOWN) == self._size)
        for flags, least in self._required:
            if len(starts):
                starts = starts[self._in_windows(flags[ids])[starts] >= least]
        return starts

    def _in_windows(self, flags: np.ndarray) -> np.ndarray:
        """Return how many flags are set among the `size` from each one on."""
        counts = np.concatenate([[0], np.cumsum(flags)])
        return counts[self._size :] - counts[: -self._size]

    def _grams(self, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the n-grams that begin at some tokens, int32 [starts, size]."""
        return ids[starts[:, None] + np.arange(self._size)]

    def _hashes(self, grams: np.ndarray) -> np.ndarray:
        """Return the hashes of n-grams, uint64."""
        return grams.astype(np.uint64) @ self._powers


def _pieces(text: str, size: int) -> Iterator[str]:
    """Yield a text in pieces of about `size` characters that end with whole tokens."""
    start = 0
    while cut := _CUT.search(text, start + size):
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]
