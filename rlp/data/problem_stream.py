"""A stream of the prompts of problems."""

from collections.abc import Sequence

import numpy as np

from rlp.answers.verifiers import Gold
from rlp.data.batch import Batch, Problems
from rlp.data.fingerprint import digest, first_records
from rlp.data.problem_format import GROUP
from rlp.runtime.fingerprints import Fingerprint


class ProblemStream:
    """Prompts by record number, either endless and shuffled or one pass in a fixed order."""

    def __init__(
        self,
        prompts: Sequence[np.ndarray],
        answers: Sequence[Gold],
        order: Sequence[int],
        *,
        sequence_length: int,
        pad: int,
        skipped: int = 0,
    ) -> None:
        """Create a stream over problems.

        Args:
          prompts: ids of each prompt, fewer than T.
          answers: gold answer to each prompt.
          order: number of the problem of each record.
          sequence_length: T, tokens per row.
          pad: id that fills a row.
          skipped: number of problems that were left out because they are too long.
        """
        self._prompts, self._answers, self._order = prompts, answers, order
        self._sequence_length, self._pad = sequence_length, pad
        self.records_per_epoch: int | None = len(prompts)
        self.skipped = skipped

    def __len__(self) -> int:
        """Return the number of problems."""
        return len(self._prompts)

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`: prompts, each with the fork at its end.

        Raises:
          IndexError: If a record is negative, or past the end of a one-pass stream.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} problems")
        tokens = np.full((size, self._sequence_length), self._pad, np.int32)
        length = np.zeros((size, 1), np.int32)
        for row in range(size):
            prompt = self._prompts[self._order[first + row]]
            tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
        index = np.arange(first, first + size, dtype=np.int32)
        return Batch(tokens, *_segments_and_positions(length, tokens.shape[1]), index, length)

    def answer(self, record: int) -> Gold:
        """Return the gold answer to the problem of a record."""
        return self._answers[self._order[record]]

    def fingerprint(self, field: str = f"{GROUP}.train") -> dict[str, Fingerprint]:
        """See `batch.Stream`. Covers prompts, answers and order, under the name of a field."""
        lengths = np.array([len(prompt) for prompt in self._prompts])
        tokens = np.concatenate([np.asarray(prompt, np.int32) for prompt in self._prompts])
        options = [answer.options for answer in self._answers]
        shape = np.array([self._sequence_length, self._pad, *options])
        order = first_records(self._order, len(self))
        content = {
            "digest": digest([shape, order, lengths, tokens, *self._answers]),
            "problems": len(self),
            "tokens": len(tokens),
        }
        return {field: content}

    def beginning(self, count: int) -> Problems:
        """Return the first records, at most `count`, with their gold answers."""
        size = min(count, len(self))
        return Problems(self.batch(0, size), tuple(self.answer(k) for k in range(size)))


def _segments_and_positions(length: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return segments and positions, int32 [B, limit], of prompts with `length` [B, 1] tokens."""
    position = np.arange(limit, dtype=np.int32)[None, :]
    inside = position < length
    return inside.astype(np.int32), np.where(inside, position, 0).astype(np.int32)
