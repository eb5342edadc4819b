"""Runs of layers: layers that repeat a unit become one scan, which compiles the unit once."""

import dataclasses
import functools
from collections.abc import Hashable


@dataclasses.dataclass(frozen=True)
class Run:
    """Consecutive layers that repeat a unit.

    Attributes:
      first: index of the first layer.
      unit: number of layers in the unit.
      times: number of repeats.
    """

    first: int
    unit: int
    times: int


@functools.cache
def runs(layers: tuple[Hashable, ...]) -> tuple[Run, ...]:
    """Cut the layers into runs with the fewest layers in their units, then the fewest runs.

    "MMGMMG" is one run of the unit "MMG", and "GGGG" one run of "G".
    """
    best: list[tuple[int, tuple[Run, ...]]] = [(0, ())]  # cost and runs of the first n layers
    for stop in range(1, len(layers) + 1):
        options = []
        for first in range(stop):
            unit = _unit(layers[first:stop])
            cost, before = best[first]
            run = Run(first, unit, (stop - first) // unit)
            options.append((cost + unit, (*before, run)))
        best.append(min(options, key=lambda option: (option[0], len(option[1]))))
    return best[-1][1]


def _unit(layers: tuple[Hashable, ...]) -> int:
    """Return the length of the shortest unit of which these layers are repeats."""
    size = len(layers)
    divisors = (n for n in range(1, size + 1) if size % n == 0)
    return next(n for n in divisors if layers[n:] == layers[:-n] or n == size)
