"""Log-probabilities of the tokens of texts, with the likeliest tokens in their places."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from models.sharding import batch_shards
from rlp.evaluation.generation.reading import padded
from rlp.evaluation.options import option_programs
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.questions import check_ids
from rlp.evaluation.options.row_batches import row_batches, table
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The tokens of a text but the first, and the likeliest ones in their places.

    Attributes:
      logprobs: [tokens - 1] float32, nats, of each token.
      likeliest: [tokens - 1, top] int32, the likeliest ids, the likeliest first.
      top_logprobs: [tokens - 1, top] float32, nats, of these.
    """

    logprobs: np.ndarray
    likeliest: np.ndarray
    top_logprobs: np.ndarray


def rank_tokens(scorer: OptionScorer, rows: Sequence[Sequence[int]], top: int) -> list[Ranked]:
    """Score every token of rows but the first, and find the likeliest tokens in its place.

    Args:
      scorer: of the network.
      rows: token ids, at least two each.
      top: number of the likeliest tokens; at most that of the embedding are found.

    Raises:
      UserError: If the network cannot read a row.
    """
    longest = scorer.context or sys.maxsize
    config = scorer.method.model
    for number, row in enumerate(rows):
        check_ids(row, config.vocab_size, f"row {number}")
        if not 1 <= len(row) - 1 <= longest:
            raise UserError(f"row {number} has {len(row)} tokens; the network cannot score it")
    found: dict[int, Ranked] = {}
    shape = lambda item: (min(padded(len(item[1]) - 1), longest),)
    limits = (scorer.batch_tokens, batch_shards(scorer.mesh))
    program = option_programs.ranking(min(top, config.vocab_size))
    listed = list(enumerate(rows))
    for (width,), some, count in row_batches(listed, shape, lambda shape: shape[0], *limits):
        ids = table([row for _, row in some], count, width + 1)
        size = table([[len(row)] for _, row in some], count, 1)[:, 0]
        result = scorer.run(program, config, ids, size)
        for (i, row), *values in zip(some, *result, strict=False):
            found[i] = Ranked(*(value[: len(row) - 1] for value in values))
    return [found[i] for i in range(len(rows))]
