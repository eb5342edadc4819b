"""Choose positions of documents for thoughts, before anything is scored.

No rule looks at losses: positions that are chosen where a network does badly would show gains that
are only the way back to its mean.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlp.data.batch import Batch
from rlp.data.corpus import fork_after
from rlp.data.located_text import LocatedText, Window, rows_of, windows_of
from rlp.tokenizers.tokenizer import Tokenizer

FORKS = 8  # maximum positions of a row; fixed, so that no draw depends on a batch


@dataclasses.dataclass(frozen=True)
class Positions:
    """A rule that chooses positions of documents.

    Attributes:
      count: number of positions per document, drawn uniformly without replacement from those of
        one of its windows (drawn in proportion to its positions); all, if there are fewer.
      stride: if not 0, every `stride`-th token of all windows instead. With the horizon as stride,
        the targets are the whole text.
      marker: if not "", the token after the last occurrence of this text in a document instead.
        Its document may end within H tokens from it on.
    """

    count: int = 8
    stride: int = 0
    marker: str = ""


@dataclasses.dataclass(frozen=True)
class Forked:
    """Rows of documents with the chosen positions.

    Attributes:
      rows: [R, T] windows, with forks [R, K]; a row with fewer positions repeats its last one.
      real: bool [R, K], which forks are not such repetitions.
      document: int [R], number of the document of each row.
      position: int [R, K], position of each fork in its document, tokens.
    """

    rows: Batch
    real: np.ndarray
    document: np.ndarray
    position: np.ndarray

    @property
    def number(self) -> np.ndarray:
        """The number of each fork among the real ones, int [R, K]; repetitions have that of the
        fork that they repeat."""
        return np.cumsum(self.real.ravel()).reshape(self.real.shape) - 1


def choose(
    documents: Sequence[LocatedText],
    rule: Positions,
    horizon: int,
    length: int,
    tokenizer: Tokenizer,
    seed: int,
) -> Forked | None:
    """Choose positions of documents; None if no document has one.

    A position has at least one token of its document before it, and H tokens from it on, or after a
    marker at least one. It belongs to the window in which its target is first
    complete. The draws of a document depend on the seed and its number only.

    Args:
      documents: in their order.
      rule: how positions are chosen.
      horizon: H.
      length: T, tokens of a row.
      tokenizer: of the documents.
      seed: of the draws.
    """
    chosen: list[tuple[int, Window, list[int]]] = []
    for number, document in enumerate(documents):
        random = np.random.default_rng((seed, number))
        least = 1 if rule.marker else horizon
        allowed = _allowed(document, windows_of(document, length, tokenizer), horizon, least)
        for window, positions in _positions(document, allowed, rule, tokenizer, random):
            for first in range(0, len(positions), FORKS):
                chosen.append((number, window, positions[first : first + FORKS]))
    if not chosen:
        return None
    most = max(len(positions) for *_, positions in chosen)
    padded = [[*p, *[p[-1]] * (most - len(p))] for *_, p in chosen]
    position = np.array(padded, np.int64)
    start = np.array([window.start for _, window, _ in chosen])
    forks = (position - start[:, None] + len(tokenizer.bos)).astype(np.int32)
    windows = [(documents[number], window) for number, window, _ in chosen]
    index = np.arange(len(chosen), dtype=np.int32)
    real = np.arange(most) < np.array([len(p) for *_, p in chosen])[:, None]
    numbers = np.array([number for number, *_ in chosen])
    return Forked(rows_of(windows, forks, index, length, tokenizer), real, numbers, position)


def _allowed(
    document: LocatedText, windows: Sequence[Window], horizon: int, least: int
) -> list[tuple[Window, range]]:
    """Return the windows that have positions, with these positions of the document; the targets at
    its end have at least `least` tokens."""
    ranges = []
    for window in windows:
        first = 1 if window.scored == 0 else window.scored - horizon + 1
        size = least if window.end == len(document.ids) else horizon
        ranges.append((window, range(max(first, window.start + 1), window.end - size + 1)))
    return [(window, allowed) for window, allowed in ranges if len(allowed)]


def _positions(
    document: LocatedText,
    allowed: Sequence[tuple[Window, range]],
    rule: Positions,
    tokenizer: Tokenizer,
    random: np.random.Generator,
) -> list[tuple[Window, list[int]]]:
    """Return windows of a document with the positions that the rule chooses in them."""
    if not allowed:
        return []
    if rule.marker:
        fork = fork_after(document.text, rule.marker, tokenizer)
        return [(window, [fork]) for window, inside in allowed if fork in inside]
    if rule.stride:
        every = [(w, [t for t in inside if t % rule.stride == 1 % rule.stride])
                 for w, inside in allowed]  # fmt: skip
        return [(window, positions) for window, positions in every if positions]
    sizes = np.array([len(inside) for _, inside in allowed])
    window, inside = allowed[random.choice(len(allowed), p=sizes / sizes.sum())]
    drawn = random.choice(np.array(inside), min(rule.count, len(inside)), replace=False)
    return [(window, sorted(drawn.tolist()))]
