"""Sums of several numbers in signs and words, with running totals as thoughts.

    Question: 98 + 35 + 64 - 86 = ?
    Answer:<think>98 + 35 = 133, 133 + 64 = 197, 197 - 86 = 111</think> 111.

Thoughts are in signs, also for `ninety-eight plus thirty-five … is what?`. No running total is negative.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.real.problems import Problem

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True)
class Level:
    """How hard the sums are.

    Attributes:
      least, most: range of the number of terms.
      low, high: range of the terms, at most 99.
      words: share of the problems that are written in words.
    """

    least: int = 4
    most: int = 5
    low: int = 10
    high: int = 99
    words: float = 0.25


def draw(level: Level, seed: int) -> Iterator[Problem]:
    """Yield different sums without end; no two have the same terms, whatever their form."""
    rng = random.Random(f"sums {seed}")
    seen: set[tuple[int, ...]] = set()
    while True:
        terms = [rng.randint(level.low, level.high)]
        for _ in range(rng.randint(level.least, level.most) - 1):
            term = rng.randint(level.low, level.high)
            terms.append(-term if term <= sum(terms) and rng.random() < 0.5 else term)
        words = rng.random() < level.words
        if tuple(terms) not in seen:
            seen.add(tuple(terms))
            yield Problem(_question(terms, words), _totals(terms), str(sum(terms)))


def number(n: int) -> str:
    """Return a number from 0 to 99 in words, such as "ninety-eight"."""
    if n < 20:
        return _ONES[n]
    tens = _TENS[n // 10 - 2]
    return f"{tens}-{_ONES[n % 10]}" if n % 10 else tens


def _question(terms: Sequence[int], words: bool) -> str:
    first, *others = terms
    spelled = number if words else str
    plus, minus = ("plus", "minus") if words else ("+", "-")
    parts = [spelled(first), *(f"{minus if n < 0 else plus} {spelled(abs(n))}" for n in others)]
    return f"{' '.join(parts)} {'is what?' if words else '= ?'}"


def _totals(terms: Sequence[int]) -> str:
    before, *others = terms
    steps = []
    for term in others:
        after = before + term
        steps.append(f"{before} {'-' if term < 0 else '+'} {abs(term)} = {after}")
        before = after
    return ", ".join(steps)
