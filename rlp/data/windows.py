"""Arrange documents in rows: cut long documents into windows, and pack short ones together."""

import bisect
import dataclasses

import numpy as np

from rlp.data.corpus import Corpus
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Windows:
    """Spans of documents as they appear in rows, after the `head` tokens (BOS) of every text.

    All fields are int64 [windows].

    Attributes:
      start: index of the first token in `Corpus.tokens`.
      length: number of tokens, including those of the head.
      fork: position in the window where the data asks for a thought; -1 for none.
    """

    start: np.ndarray
    length: np.ndarray
    fork: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def select(self, keep: np.ndarray) -> "Windows":
        """Return the windows for which the boolean mask `keep` [windows] is true."""
        return Windows(self.start[keep], self.length[keep], self.fork[keep])


def cut_windows(corpus: Corpus, documents: np.ndarray, size: int, head: int = 0) -> Windows:
    """Cut documents into windows of `size` tokens; the last window of a document may be shorter.

    Every window begins with the head, since a model that was trained with a BOS predicts badly
    without one.

    Args:
      corpus: contains the documents.
      documents: int [n], numbers of the documents to cut.
      size: T, tokens of a window, more than `head`.
      head: number of tokens before every text.
    """
    begin, end = corpus.bounds[documents], corpus.bounds[documents + 1]
    room = size - head
    counts = -(-(end - begin) // room)
    first = np.cumsum(counts) - counts  # number of each document's first window
    skip = (np.arange(counts.sum()) - np.repeat(first, counts)) * room
    start = np.repeat(begin, counts) + skip
    length = np.minimum(room, np.repeat(end, counts) - start)
    fork = np.repeat(corpus.forks[documents], counts)
    inside = (fork >= skip) & (fork < skip + length)
    return Windows(start, head + length, np.where(inside, head + fork - skip, -1))


def whole_windows(corpus: Corpus, documents: np.ndarray, size: int, head: int = 0) -> Windows:
    """Return a window for each document of at most `size` tokens, and leave out the others.

    Args:
      corpus, documents, size, head: as for `cut_windows`.
    """
    start = corpus.bounds[documents]
    length = head + corpus.bounds[documents + 1] - start
    return Windows(start, length, corpus.forks[documents]).select(length <= size)


def pack_windows(lengths: np.ndarray, size: int) -> list[list[int]]:
    """Pack windows into rows of `size` tokens: best fit, longest window first.

    Args:
      lengths: int [windows], tokens of each window, at most `size`.
      size: T, tokens per row.

    Returns:
      The numbers of the windows of each row. Every window is in exactly one row.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # free tokens → rows with that number of free tokens
    rooms: list[int] = []  # the keys of `open_rows` that have rows, in ascending order
    all_lengths = lengths.tolist()
    for window in np.argsort(-lengths, kind="stable").tolist():
        length = all_lengths[window]
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), size
            rows.append([])
        else:
            room = rooms[at]
            row = open_rows[room].pop()
            if not open_rows[room]:
                del rooms[at]
        rows[row].append(window)
        room -= length
        if room > 0:
            waiting = open_rows.setdefault(room, [])
            if not waiting:
                bisect.insort(rooms, room)
            waiting.append(row)
    return rows


def usable_windows(
    which: str,
    windows: Windows,
    rest: np.ndarray,
    min_tokens: int,
    fork_marker: str,
    min_prefix: int,
    horizon: int,
) -> Windows:
    """Return the windows that are long enough and, if `fork_marker` is set, have a usable fork.

    A fork is usable if enough tokens are before it, and all tokens of its target that its document
    has are in the window: a document may end within H tokens of the fork, but no row may.

    Args:
      which: "training" or "held-out", for errors.
      windows: of documents.
      rest: int [windows], the length that each would have if it went on to the end of its document.
      min_tokens: minimum length.
      fork_marker: text that precedes the fork; "" for no forks.
      min_prefix: minimum tokens before a fork, at least 1.
      horizon: H.

    Raises:
      UserError: If no window is usable.
    """
    keep = windows.length >= min_tokens
    if not keep.any():
        raise UserError(
            f"none of the {len(windows)} {which} windows has the {min_tokens} tokens that a row "
            f"needs (the longest has {windows.length.max()}): use longer documents"
        )
    if fork_marker:
        if (windows.fork < 0).all():
            raise UserError(
                f"no {which} document contains data.fork_marker={fork_marker!r} with text after "
                "it: set it to a text that precedes the text to be predicted",
                field="data.fork_marker",
                value=fork_marker,
            )
        end = np.minimum(windows.fork + horizon, rest)  # of the target
        keep &= (windows.fork >= max(1, min_prefix)) & (end <= windows.length)
        if not keep.any():
            raise UserError(
                f"no {which} window has at least {max(1, min_prefix)} tokens before the end of "
                f"data.fork_marker={fork_marker!r} and the {horizon} tokens after it that belong "
                "to the document: raise data.sequence_length, or lower rlp.min_prefix or "
                "rlp.horizon",
                field="data.sequence_length",
            )
    return windows.select(keep)
