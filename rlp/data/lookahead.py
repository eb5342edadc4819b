"""Lookaheads in training documents: Trelawney, arXiv 2504.11336, its variant that copies.

    x_0 … x_{d-1} <think> x_s … x_{s+k-1} </think> x_d … x_s … x_{s+k-1} …       1 ≤ d ≤ s

At a place d a stretch of what the document says later stands between the thinking tags; then the
document goes on as if nothing had come between. The opening tag is not learnt, so a model learns to
foresee where one is put, and not to put one itself.
"""

from collections.abc import Collection

import numpy as np

from rlp.data.batch import Batch, Stream
from rlp.data.fingerprint import of_settings
from rlp.data.tags import begins
from rlp.runtime.fingerprints import Fingerprint

DRAWS = 2  # in the place where the compass has 0 or 1, so that no draw is one of its own


class LookaheadStream:
    """Rows of a stream with lookaheads in a share of the documents.

    What a row has no room for is cut off its end. A lookahead is drawn so that it and the stretch
    that it tells of are in what remains; a document that has no place for one stays as it is. So
    does one that holds a whole thinking tag. The draws of a row are a function of the seed and of
    its `index`.
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
        """Wraps a stream.

        Args:
          documents: rows of one or several documents, all of whose tokens are learnt.
          seed: of the draws.
          share: probability of a lookahead, for each document of a row.
          length: most tokens of the stretch; how many it has is uniform.
          distance: most tokens between the place of the lookahead and the stretch's start.
          think_open: ids before the stretch.
          think_close: ids after it.
          bos: number of tokens at the beginning of a document that are not text.
          pad: id that fills a row.
          ends: ids that no thought can hold: a document is looked ahead in as far as the first of
            them after its first token.
        """
        self._documents = documents
        self._seed, self._share = seed, share
        self._length, self._distance = length, distance
        self._open, self._close = think_open, think_close
        self._first = max(1, bos)  # the earliest place of a lookahead
        self._pad, self._ends = pad, np.array(sorted(ends))
        self.records_per_epoch = documents.records_per_epoch

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`, whose `loss_mask` leaves out opening tags."""
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
                    place, start, length = drawn
                    ahead = (*self._open, *document[start : start + length], *self._close)
                    document = np.insert(document, place, ahead)
                    mask[b, at + place : at + place + len(self._open)] = False
                    if number == 1:
                        forks[b] += (forks[b] >= place) * (length + tags)
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
        """Place, start and length of a document's lookahead; None where it gets none.

        Args:
          rng: of the row.
          document: ids.
          room: tokens that the row has left for it.
        """
        if rng.random() >= self._share:
            return None
        if any(begins(document, tag).any() for tag in (self._open, self._close)):
            return None
        first = self._first
        body = first + int(np.argmax(np.append(np.isin(document[first:], self._ends), True)))
        room -= len(self._open) + len(self._close)
        longest = min(self._length, body - first, (room - first) // 2)
        if longest < 1:
            return None
        length = int(rng.integers(1, longest + 1))
        last = min(body, room - length) - length  # start of the stretch
        place = int(rng.integers(first, last + 1))
        start = int(rng.integers(place, min(place + self._distance, last) + 1))
        return place, start, length
