"""A mixture of documents and of prompts with responses, as one stream of rows."""

import fractions

import numpy as np

from rlp.data.batch import Batch, Stream
from rlp.data.fingerprint import of_settings
from rlp.runtime.fingerprints import Fingerprint


class MixedStream:
    """Rows of two streams in a fixed proportion.

    Of the first k records, floor(k · share) are pairs, spread evenly. So record k is a function of
    k and of the two streams, whose records are functions of (seed, number): k is the only position
    that a run needs to resume.
    """

    records_per_epoch: int | None = None

    def __init__(self, documents: Stream, pairs: Stream, share: float):
        """Mix two streams of rows of equal length.

        Args:
          documents: rows whose tokens are all in the loss, unless their batches have a `loss_mask`.
          pairs: rows whose batches have a `loss_mask`.
          share: share of the rows that are pairs, in (0, 1).
        """
        self._documents, self._pairs = documents, pairs
        self._share = fractions.Fraction(share).limit_denominator(10**6)  # 0.3 is 3 / 10

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`."""
        up_to = np.array([int(k * self._share) for k in range(first, first + size + 1)])
        is_pair = np.diff(up_to) > 0
        pairs = self._pairs.batch(int(up_to[0]), int(is_pair.sum()))
        documents = self._documents.batch(first - int(up_to[0]), int((~is_pair).sum()))

        def mixed(name: str) -> np.ndarray:
            pair_values = np.asarray(getattr(pairs, name))
            rows = np.empty((size, *pair_values.shape[1:]), pair_values.dtype)
            rows[is_pair], rows[~is_pair] = pair_values, getattr(documents, name)
            return rows

        mask = np.ones((size, np.shape(pairs.tokens)[1]), bool)
        mask[is_pair] = pairs.loss_mask
        if documents.loss_mask is not None:
            mask[~is_pair] = documents.loss_mask
        names = ("tokens", "segment", "position", "forks")
        index = np.arange(first, first + size, dtype=np.int32)
        return Batch(**{name: mixed(name) for name in names}, index=index, loss_mask=mask)

    def fingerprint(self) -> dict[str, Fingerprint]:
        """See `Stream`."""
        share = {"data.sft.share": of_settings(share=str(self._share))}
        return self._documents.fingerprint() | self._pairs.fingerprint() | share
