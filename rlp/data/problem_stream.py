"""Prompts of problems by record number."""

from collections.abc import Sequence

import numpy as np

from rlp.answers.verifiers import Gold
from rlp.data.batch import Batch, Problems
from rlp.data.fingerprint import digest, first_records
from rlp.data.problem_format import GROUP
from rlp.runtime.fingerprints import Fingerprint


class ProblemStream:
    """Prompts by record number; endless and shuffled, or one pass."""

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
        """A stream over problems.

        Args:
          prompts: ids of each, fewer than T.
          answers: of each.
          order: number of the problem of each record.
          sequence_length: T, tokens of a row.
          pad: id that fills a row.
          skipped: number of problems that were left out because they are too long.
        """
        self._prompts, self._answers, self._order = prompts, answers, order
        self._sequence_length, self._pad = sequence_length, pad
        self.records_per_epoch: int | None = len(prompts)
        self.skipped = skipped

    def __len__(self) -> int:
        """Number of problems."""
        return len(self._prompts)

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`: prompts, each with the fork at its end.

        Raises:
          IndexError: a negative record, or one past the end of a stream that has an end.
        """
        if first < 0 or first + size > len(self._order):
            raise IndexError(f"no records {first} to {first + size - 1} among {len(self)} problems")
        tokens = np.full((size, self._sequence_length), self._pad, np.int32)
        length = np.zeros((size, 1), np.int32)
        for row in range(size):
            prompt = self._prompts[self._order[first + row]]
            tokens[row, : len(prompt)], length[row] = prompt, len(prompt)
        index = np.arange(first, first + size, dtype=np.int32)
        return Batch(tokens, *_prompt_places(length, tokens.shape[1]), index, length)

    def answer(self, record: int) -> Gold:
        """The right answer to the problem of a record."""
        return self._answers[self._order[record]]

    def fingerprint(self, field: str = f"{GROUP}.train") -> dict[str, Fingerprint]:
        """See `batch.Stream`: of prompts, answers and order, under the name of a field."""
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
        """The first records, at most `count`, with their answers."""
        size = min(count, len(self))
        return Problems(self.batch(0, size), tuple(self.answer(k) for k in range(size)))


def _prompt_places(length: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments and positions of rows that hold a prompt of `length` [B, 1] tokens each."""
    place = np.arange(limit, dtype=np.int32)[None, :]
    inside = place < length
    return inside.astype(np.int32), np.where(inside, place, 0).astype(np.int32)
