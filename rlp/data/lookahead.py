"""Lookaheads in training documents: the copying variant of Trelawney, arXiv 2504.11336.

    x_0 … x_{d-1} <think> x_s … x_{s+k-1} </think> x_d … x_s … x_{s+k-1} …       1 ≤ d ≤ s

At position d, a span of the later text is inserted between thinking tags; the document then
continues unchanged. The opening tag is not in the loss, so a model learns to look ahead where a tag
is placed, and does not learn to place one.
"""

from collections.abc import Collection

import numpy as np

from rlp.data.batch import Batch, Stream
from rlp.data.fingerprint import of_settings
from rlp.data.tags import sequence_starts
from rlp.runtime.fingerprints import Fingerprint

DRAWS = 2  # in place of the 0 or 1 of the compass, so that their random draws are independent


class LookaheadStream:
    """Rows of a stream, with lookaheads in a share of the documents.

    Rows keep their length: tokens that no longer fit are cut off the end. A lookahead and the span
    that it copies are always in the part that remains. A document without room for a lookahead, or
    that contains a complete thinking tag, is unchanged. The draws of a row are a function of the
    seed and of its `index`.
    """

    def __init__(
        self,
        documents: Stream,
        *,
        seed: int,
        share: float,
        length: int,
        distance: int,
        think_open: tuple[int, ...],
        think_close: tuple[int, ...],
        bos: int,
        pad: int,
        ends: Collection[int],
    ) -> None:
        """Wrap a stream.

        Args:
          documents: rows of one or more documents, all of whose tokens are in the loss.
          seed: seed of the draws.
          share: probability of a lookahead, for each document of a row.
          length: maximum tokens of the copied span; its length is uniform.
          distance: maximum tokens between the lookahead and the start of the copied span.
          think_open: ids before the span.
          think_close: ids after it.
          bos: number of tokens at the beginning of a document that are not text.
          pad: id that fills a row.
          ends: ids that cannot occur inside a thought (pad, BOS, EOS, separator); lookaheads are
            drawn only from the text before the first of them after the first token.
        """
        self._documents = documents
        self._seed, self._share = seed, share
        self._length, self._distance = length, distance
        self._open, self._close = think_open, think_close
        self._first = max(1, bos)  # the earliest position of a lookahead
        self._pad, self._ends = pad, np.array(sorted(ends))
        self.records_per_epoch = documents.records_per_epoch

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`, whose `loss_mask` excludes opening tags."""
        source = self._documents.batch(first, size)
        shape = (size, np.shape(source.tokens)[1])
        tokens = np.full(shape, self._pad, np.int32)
        segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        mask = np.ones(shape, bool)
        forks = np.array(source.forks)
        tags = len(self._open) + len(self._close)
        for b in range(size):
            rng = np.random.default_rng((self._seed, DRAWS, int(source.index[b])))
            at = 0
            for number in range(1, int(source.segment[b].max()) + 1):
                document = np.asarray(source.tokens[b])[source.segment[b] == number]
                room = shape[1] - at
                if drawn := self._draw(rng, document, room):
                    insert_at, start, length = drawn
                    ahead = (*self._open, *document[start : start + length], *self._close)
                    document = np.insert(document, insert_at, ahead)
                    mask[b, at + insert_at : at + insert_at + len(self._open)] = False
                    if number == 1:
                        forks[b] += (forks[b] >= insert_at) * (length + tags)
                        forks[b, forks[b] >= room] = -1
                document = document[:room]
                here = slice(at, at := at + len(document))
                tokens[b, here], segment[b, here] = document, number
                position[b, here] = np.arange(len(document))
        return Batch(tokens, segment, position, source.index, forks, mask)

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        settings = of_settings(
            seed=self._seed,
            share=self._share,
            length=self._length,
            distance=self._distance,
            tags=[self._open, self._close],
            first=self._first,
            ends=self._ends.tolist(),
        )
        return self._documents.fingerprint() | {"data.lookahead": settings}

    def _draw(
        self, rng: np.random.Generator, document: np.ndarray, room: int
    ) -> tuple[int, int, int] | None:
        """Draw the position of a document's lookahead, and the start and length of its span.

        Args:
          rng: random generator of the row.
          document: ids.
          room: tokens that the row has left for the document.

        Returns:
          None if the document gets no lookahead.
        """
        if rng.random() >= self._share:
            return None
        if any(sequence_starts(document, tag).any() for tag in (self._open, self._close)):
            return None
        first = self._first
        body = first + int(np.argmax(np.append(np.isin(document[first:], self._ends), True)))
        room -= len(self._open) + len(self._close)
        longest = min(self._length, body - first, (room - first) // 2)
        if longest < 1:
            return None
        length = int(rng.integers(1, longest + 1))
        last = min(body, room - length) - length  # the last possible start of the span
        insert_at = int(rng.integers(first, last + 1))
        start = int(rng.integers(insert_at, min(insert_at + self._distance, last) + 1))
        return insert_at, start, length
