"""Runs of layers: what repeats is one scan, so that little is compiled."""

import dataclasses
import functools
from collections.abc import Hashable


@dataclasses.dataclass(frozen=True)
class Run:
    """Layers that repeat a unit.

    Attributes:
      first: number of the first layer.
      unit: layers of the unit.
      times: how often it is repeated.
    """

    first: int
    unit: int
    times: int


@functools.cache
def runs(layers: tuple[Hashable, ...]) -> tuple[Run, ...]:
    """The layers cut into runs with the fewest layers in their units, and then the fewest runs.

    "MMGMMG" is one run of the unit "MMG", and "GGGG" one of "G".
    """
    best: list[tuple[int, tuple[Run, ...]]] = [(0, ())]  # of the first layers: cost, runs
    for stop in range(1, len(layers) + 1):
        found = []
        for first in range(stop):
            unit = _unit(layers[first:stop])
            cost, before = best[first]
            run = Run(first, unit, (stop - first) // unit)
            found.append((cost + unit, (*before, run)))
        best.append(min(found, key=lambda entry: (entry[0], len(entry[1]))))
    return best[-1][1]


def _unit(layers: tuple[Hashable, ...]) -> int:
    """Layers of the shortest unit that these repeat."""
    size = len(layers)
    each = (n for n in range(1, size + 1) if size % n == 0)
    return next(n for n in each if layers[n:] == layers[:-n] or n == size)
