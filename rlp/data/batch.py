"""The "documents" stage: what a data source hands to the objective.

A batch holds rows of token ids with one or several documents each.  Padding stands at the end
of a row and has segment 0.
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
      position: int32 [B, T], the token's place in its document, from 0; 0 for padding.
      index: int32 [B], number of the record in the stream.  It names the row for randomness, so
        that a row's draws do not depend on how the stream is cut into batches.
      forks: int32 [B, K], positions in the row's document where the data itself says that a
        thought belongs (the position of the token to be predicted); -1 for none.
      loss_mask: bool [B, T], the tokens over which a next-token loss is the mean: those of
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
    """Prompts with the answers that are right.

    Attributes:
      prompts: one a row, its fork at its end.
      answers: to each.
    """

    prompts: Batch
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Rows that are not trained on.

    Attributes:
      documents: one a row, for thoughts to branch off; None where no data is documents.
      pairs: a prompt with its response a row; None where there are none.
      problems: by the name of their file; the name is "" where they are some of the training files.
      fingerprint: of all rows that were held out, these and others, by fields of the config.
    """

    documents: Batch | None
    pairs: Batch | None = None
    problems: Mapping[str, Problems] = dataclasses.field(default_factory=dict)
    fingerprint: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)


class Stream(Protocol):
    """An endless sequence of records, read by number.

    `records_per_epoch` is the number of different rows, or None for a source that generates
    its rows and never repeats them, and for a mixture.
    """

    records_per_epoch: int | None

    def batch(self, first: int, size: int) -> Batch:
        """Records `first` … `first + size - 1`: a pure function of the seed and the numbers."""

    def fingerprint(self) -> dict[str, Fingerprint]:
        """What the rows are, by the fields of the config that they come from."""


@runtime_checkable
class Answered(Protocol):
    """What a stream of problems can do besides."""

    def answer(self, record: int) -> str:
        """The right answer to the problem of a record."""
