"""The "documents" stage: the batches that a data source passes to the objective.

A batch holds rows of token ids with one or several documents each.  Padding is at the end of a
row and has segment 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import flax.struct
import jax
import numpy as np

from rlp.runtime.fingerprints import Fingerprint

Array = np.ndarray | jax.Array


@flax.struct.dataclass
class Batch:
    """B rows of T tokens.

    Attributes:
      tokens: int32 [B, T], token ids; padding holds the tokenizer's pad id.
      segment: int32 [B, T], which document of its row a token belongs to: 1, 2, …, and 0 for
        padding.
      position: int32 [B, T], the position of the token in its document, from 0; 0 for padding.
      index: int32 [B], number of the record in the stream.  It seeds the row's random draws, so
        that they do not depend on how the stream is cut into batches.
      forks: int32 [B, K], positions in the row's document where the data itself asks for a
        thought (the position of the token to be predicted); -1 for none.
      loss_mask: bool [B, T], the tokens that the next-token loss is averaged over: those of
        responses, or all but the tags that open lookaheads.  None for all tokens.
    """

    tokens: Array
    segment: Array
    position: Array
    index: Array
    forks: Array
    loss_mask: Array | None = None


@dataclasses.dataclass(frozen=True)
class Problems:
    """Prompts with their gold answers.

    Attributes:
      prompts: one prompt per row, with the fork at its end.
      answers: the gold answer to each prompt.
    """

    prompts: Batch
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Rows that are not trained on.

    Attributes:
      documents: one document per row, for thoughts to branch off; None if the run has no documents.
      pairs: one prompt with its response per row; None if the run has no pairs.
      problems: by the name of their file; the name is "" if they were split off the training files.
      fingerprint: of all held-out rows, also those that are not in this object, by config field.
    """

    documents: Batch | None
    pairs: Batch | None = None
    problems: Mapping[str, Problems] = dataclasses.field(default_factory=dict)
    fingerprint: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)


class Stream(Protocol):
    """An endless sequence of records, read by number.

    `records_per_epoch` is the number of different rows.  It is None for a source that generates
    its rows and never repeats them, and for a mixture.
    """

    records_per_epoch: int | None

    def batch(self, first: int, size: int) -> Batch:
        """Return records `first` … `first + size - 1`, a pure function of the seed and numbers."""

    def fingerprint(self) -> dict[str, Fingerprint]:
        """Return a fingerprint of the rows for each config field that they come from."""


@runtime_checkable
class Answered(Protocol):
    """The additional method of a stream of problems."""

    def answer(self, record: int) -> str:
        """Return the gold answer to the problem of a record."""
