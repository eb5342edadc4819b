"""Orders of the rows of a stream."""

import math
from collections.abc import Sequence

import grain


def shuffled(count: int, seed: int) -> Sequence[int]:
    """0 … count - 1 in an endless order: each epoch is a permutation of its own."""
    return grain.MapDataset.source(range(count)).seed(seed).shuffle().repeat()


def spread(count: int) -> list[int]:
    """A permutation of 0 … count - 1 of which every beginning is spread evenly.

    Windows lie in the order of the files: the first 64 may all come from one document. Steps of
    the golden ratio of the whole visit every part of it early.
    """
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    return [k * step % count for k in range(count)]
