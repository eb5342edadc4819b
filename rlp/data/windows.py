"""From documents to rows: cutting long documents into windows, laying short ones side by side."""

import bisect
import dataclasses

import numpy as np

from rlp.data.corpus import Corpus
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Windows:
    """Stretches of documents, each as a row holds it: behind `head` tokens that stand before every
    text. All fields are int64 [windows].

    Attributes:
      start: place of the first token in `Corpus.tokens`.
      length: tokens, those of the head included.
      fork: position in the window where the data says that a thought belongs; -1 for none.
    """

    start: np.ndarray
    length: np.ndarray
    fork: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def select(self, keep: np.ndarray) -> "Windows":
        """Those windows for which the boolean mask `keep` [windows] holds."""
        return Windows(self.start[keep], self.length[keep], self.fork[keep])


def cut_windows(corpus: Corpus, documents: np.ndarray, size: int, head: int = 0) -> Windows:
    """Documents cut, from their beginnings, into windows of `size` tokens; the last is shorter.

    Every window begins with the head, since a network that was trained with a bos before its texts
    predicts badly without one.

    Args:
      corpus: holds the documents.
      documents: int [n], which of them to cut.
      size: T, tokens; more than `head`.
      head: tokens before every text.
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
    """A window for each document that has at most `size` tokens; the others are left out.

    Args:
      corpus, documents, size, head: as of `cut_windows`.
    """
    start = corpus.bounds[documents]
    length = head + corpus.bounds[documents + 1] - start
    return Windows(start, length, corpus.forks[documents]).select(length <= size)


def pack_windows(lengths: np.ndarray, size: int) -> list[list[int]]:
    """Windows laid into rows of `size` tokens: best fit, longest first.

    Args:
      lengths: int [windows], tokens, each at most `size`.
      size: T, tokens.

    Returns:
      For each row the numbers of its windows. Every window is in exactly one row.
    """
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # tokens left → rows with so many left
    rooms: list[int] = []  # the keys of `open_rows` that have rows, ascending
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
    min_tokens: int,
    fork_marker: str,
    min_prefix: int,
    horizon: int,
) -> Windows:
    """The windows that are long enough and, where forks are given, hold a fork.

    Raises:
      UserError: there is none.
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
                f"no {which} document goes on after data.fork_marker={fork_marker!r}: set it to a "
                "text that stands before what is to be predicted",
                field="data.fork_marker",
                value=fork_marker,
            )
        room = (windows.fork >= max(1, min_prefix)) & (windows.fork + horizon <= windows.length)
        keep &= room
        if not keep.any():
            raise UserError(
                f"no {which} window has {max(1, min_prefix)} tokens before the place that "
                f"data.fork_marker={fork_marker!r} gives and {horizon} from it on: raise "
                "data.sequence_length, or lower rlp.min_prefix or rlp.horizon",
                field="data.sequence_length",
            )
    return windows.select(keep)
