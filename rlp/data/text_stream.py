"""Rows of documents by record number.

    corpus → windows of at most T tokens, each with a BOS → rows → records

The set of rows is fixed when a stream is created. A row is one window or, with packing, several
complete windows. Record k of the training stream is row `order[k]`, where the order is a new
permutation of all rows in every epoch and a pure function of (seed, k): k is the only position that
a run needs to resume.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rlp.data.batch import Batch
from rlp.data.corpus import Corpus
from rlp.data.fingerprint import digest, first_records
from rlp.data.summary import plural
from rlp.data.windows import Windows
from rlp.runtime.fingerprints import Fingerprint

_HASHED = 4096  # windows whose tokens are hashed at a time


class TextStream:
    """Rows of a corpus by record number, either endless and shuffled or one pass in a fixed order.

    Attributes:
      records_per_epoch: number of rows.
      skipped: number of windows (or pairs) that were left out.
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
        """Create a stream over windows that have been arranged in rows.

        Args:
          corpus: contains the tokens.
          windows: spans of the corpus.
          rows: numbers of the windows of each row.
          order: number of the row of each record.
          field: config field of the data, which names them in the fingerprint.
          documents: number of documents (or pairs) that the rows were chosen from.
          sequence_length: T, tokens per row.
          bos: ids at the beginning of every window, which its length includes.
          pad: id that fills a row.
          skipped: number of windows (or pairs) that were left out.
        """
        self._corpus, self._windows, self._rows, self._order = corpus, windows, rows, order
        self._field, self._documents = field, documents
        self._sequence_length, self._pad = sequence_length, pad
        self._bos = np.array(bos, np.int32)
        self.records_per_epoch: int | None = len(rows)
        self.skipped = skipped

    def __len__(self) -> int:
        """Return the number of rows of one epoch, or of the single pass."""
        return len(self._rows)

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`, B = `size`, K = 1.

        Raises:
          IndexError: If a record is negative, or past the end of a one-pass stream.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} rows")
        shape = (size, self._sequence_length)
        tokens = np.full(shape, self._pad, np.int32)
        segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        forks = np.full((size, 1), -1, np.int32)
        in_loss = self._corpus.loss_mask
        mask = None if in_loss is None else np.zeros(shape, bool)
        for b in range(size):
            row = self._rows[self._order[first + b]]
            at = 0
            for number, window in enumerate(row, 1):
                start, length = self._windows.start[window], self._windows.length[window]
                here, text = slice(at, at + length), at + len(self._bos)
                source = slice(start, start + length - len(self._bos))
                tokens[b, at:text] = self._bos
                tokens[b, text : at + length] = self._corpus.tokens[source]
                if mask is not None and in_loss is not None:
                    mask[b, text : at + length] = in_loss[source]
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
                summary.noun: self._documents,
                "rows": len(self),
                "tokens": int(self._windows.length.sum()),
                "files": self._corpus.files,
            }
        }

    def _content(self) -> Iterator[np.ndarray]:
        """Yield everything that `batch` depends on."""
        yield np.array([self._sequence_length, self._pad])
        yield self._bos
        yield first_records(self._order, len(self))
        yield np.array([len(row) for row in self._rows])
        windows = np.concatenate([np.asarray(row, np.int64) for row in self._rows])
        yield self._windows.fork[windows]
        start = self._windows.start[windows]
        length = self._windows.length[windows] - len(self._bos)
        yield length
        in_loss = self._corpus.loss_mask
        for first in range(0, len(windows), _HASHED):
            chunk = slice(first, first + _HASHED)
            before = np.cumsum(length[chunk]) - length[chunk]
            indices = np.repeat(start[chunk] - before, length[chunk])
            indices += np.arange(len(indices))
            yield self._corpus.tokens[indices]
            if in_loss is not None:
                yield in_loss[indices]


def log_streams(
    corpus: Corpus,
    held_corpus: Corpus,
    train: TextStream,
    held: TextStream,
    noun: str,
    reasons: str,
) -> None:
    """Log a line for each config field that was read: its files, their contents, and the rows.

    Args:
      corpus, held_corpus: the training and held-out data; may be the same object.
      train, held: their streams.
      noun: what rows consist of, in the plural: "windows" or "pairs".
      reasons: why some of them are left out.
    """
    rows = []
    for name, stream in (("training", train), ("held-out", held)):
        rows.append(plural(len(stream), f"{name} rows"))
        if stream.skipped:
            rows[-1] += f", left out: {plural(stream.skipped, noun)} ({reasons})"
    if corpus is held_corpus:
        corpus.summary.log(len(corpus.tokens), "; ".join(rows))
        return
    for part, line in zip((corpus, held_corpus), rows, strict=True):
        part.summary.log(len(part.tokens), line)
