"""Rows of documents by record number.

    corpus → windows of at most T tokens, each behind a bos → rows → records

The set of rows is fixed when a stream is made. A row is one window, or, packed, several whole
windows side by side. Record k of the training stream is row `order[k]`, where the order is a fresh
permutation of all rows in every epoch and a pure function of (seed, k): a run that restarts needs
no other position than k.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rlp.data.batch import Batch
from rlp.data.corpus import Corpus
from rlp.data.fingerprint import digest, first_records
from rlp.data.summary import many
from rlp.data.windows import Windows
from rlp.runtime.fingerprints import Fingerprint

_HASHED = 4096  # windows whose tokens are hashed at a time


class TextStream:
    """Rows of a corpus by record number; endless and shuffled, or one pass.

    Attributes:
      records_per_epoch: number of rows.
      skipped: windows left out since they were too short or had no usable given fork.
    """

    def __init__(
        self,
        corpus: Corpus,
        windows: Windows,
        rows: Sequence[Sequence[int]],
        order: Sequence[int],
        *,
        field: str,
        documents: int,
        sequence_length: int,
        bos: Sequence[int],
        pad: int,
        skipped: int,
    ) -> None:
        """A stream over windows that have been laid into rows.

        Args:
          corpus: whose tokens are laid out.
          windows: stretches of them.
          rows: numbers of the windows of each row.
          order: number of the row of each record.
          field: of the config, which names what the rows are.
          documents: number of documents (or pairs) that the rows were chosen from.
          sequence_length: T, tokens of a row.
          bos: ids at the beginning of every window, which its length includes.
          pad: id that fills a row.
          skipped: number of windows that were left out before.
        """
        self._corpus, self._windows, self._rows, self._order = corpus, windows, rows, order
        self._field, self._documents = field, documents
        self._sequence_length, self._pad = sequence_length, pad
        self._bos = np.array(bos, np.int32)
        self.records_per_epoch: int | None = len(rows)
        self.skipped = skipped

    def __len__(self) -> int:
        """Number of rows: of one epoch, or of the one pass."""
        return len(self._rows)

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`, B = `size`, K = 1.

        Raises:
          IndexError: a negative record, or one past the end of a stream that has an end.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} rows")
        shape = (size, self._sequence_length)
        tokens = np.full(shape, self._pad, np.int32)
        segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        forks = np.full((size, 1), -1, np.int32)
        learnt = self._corpus.loss_mask
        mask = None if learnt is None else np.zeros(shape, bool)
        for b in range(size):
            row = self._rows[self._order[first + b]]
            at = 0
            for number, window in enumerate(row, 1):
                start, length = self._windows.start[window], self._windows.length[window]
                here, text = slice(at, at + length), at + len(self._bos)
                source = slice(start, start + length - len(self._bos))
                tokens[b, at:text] = self._bos
                tokens[b, text : at + length] = self._corpus.tokens[source]
                if mask is not None and learnt is not None:
                    mask[b, text : at + length] = learnt[source]
                segment[b, here] = number
                position[b, here] = np.arange(length)
                at += length
            forks[b, 0] = self._windows.fork[row[0]]
        index = np.asarray(range(first, first + size), np.int32)
        return Batch(tokens, segment, position, index, forks, mask)

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        summary = self._corpus.summary
        return {
            self._field: {
                "digest": digest(self._content()),
                summary.what: self._documents,
                "rows": len(self),
                "tokens": int(self._windows.length.sum()),
                "files": self._corpus.files,
            }
        }

    def _content(self) -> Iterator[np.ndarray]:
        """All that `batch` makes rows of."""
        yield np.array([self._sequence_length, self._pad])
        yield self._bos
        yield first_records(self._order, len(self))
        yield np.array([len(row) for row in self._rows])
        windows = np.concatenate([np.asarray(row, np.int64) for row in self._rows])
        yield self._windows.fork[windows]
        start = self._windows.start[windows]
        length = self._windows.length[windows] - len(self._bos)
        yield length
        learnt = self._corpus.loss_mask
        for first in range(0, len(windows), _HASHED):
            some = slice(first, first + _HASHED)
            before = np.cumsum(length[some]) - length[some]
            places = np.repeat(start[some] - before, length[some])
            places += np.arange(len(places))
            yield self._corpus.tokens[places]
            if learnt is not None:
                yield learnt[places]


def tell(
    corpus: Corpus,
    held_corpus: Corpus,
    train: TextStream,
    held: TextStream,
    what: str,
    reasons: str,
) -> None:
    """Logs a line for each field that was read: its files, what they hold, and the rows.

    Args:
      corpus, held_corpus: what was read, for training and held out; may be the same.
      train, held: the streams of them.
      what: the stretches are called that rows are made of.
      reasons: why some of them are left out.
    """
    rows = []
    for name, stream in (("training", train), ("held-out", held)):
        left_out = f", {many(stream.skipped, what)} left out ({reasons})" if stream.skipped else ""
        rows.append(f"{many(len(stream), f'{name} rows')}{left_out}")
    if corpus is held_corpus:
        corpus.summary.tell(len(corpus.tokens), "; ".join(rows))
        return
    for each, line in zip((corpus, held_corpus), rows, strict=True):
        each.summary.tell(len(each.tokens), line)
