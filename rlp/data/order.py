"""Orders of the rows of a stream."""

import math
from collections.abc import Sequence

import grain


def shuffled(count: int, seed: int) -> Sequence[int]:
    """Return an endless order of 0 … count - 1, with a new permutation in every epoch."""
    return grain.MapDataset.source(range(count)).seed(seed).shuffle().repeat()


def spread(count: int) -> list[int]:
    """Return a permutation of 0 … count - 1 whose first few numbers are spread evenly.

    Windows are in the order of the files, so the first 64 may all come from one document. Steps of
    `count` times the golden ratio visit every part of the range early.
    """
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    return [k * step % count for k in range(count)]
