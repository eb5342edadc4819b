"""Runs of layers cover the pattern, with as few layers in their units as possible."""

import functools
import itertools
import random

import pytest

from models.pattern import runs


def units(layers: str) -> list[str]:
    """Return the runs as "times·unit", and assert that they cover the layers."""
    all_runs = runs(tuple(layers))
    repeats = [(layers[run.first : run.first + run.unit], run.times) for run in all_runs]
    assert "".join(unit * times for unit, times in repeats) == layers
    assert [run.first for run in all_runs] == list(
        itertools.accumulate((run.unit * run.times for run in all_runs[:-1]), initial=0)
    )
    return [f"{times}·{unit}" for unit, times in repeats]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("G" * 28, "28·G"),
        ("DDDG" * 6, "6·DDDG"),
        ("M-M-M-M*-" * 6 + "M-" * 4, "6·M-M-M-M*- 4·M-"),
        ("MG", "1·MG"),
        ("MMMG", "3·M 1·G"),
    ],
)
def test_repeated_layers_are_one_run(layers, expected):
    assert " ".join(units(layers)) == expected


@functools.cache
def fewest(layers: str) -> int:
    """Return the number of layers in the units of the best cut, by exhaustive search."""
    if not layers:
        return 0
    parts = [
        (unit, times)
        for unit in range(1, len(layers) + 1)
        for times in range(1, len(layers) // unit + 1)
        if layers.startswith(layers[:unit] * times)
    ]
    return min(unit + fewest(layers[unit * times :]) for unit, times in parts)


def test_no_cut_has_fewer_layers_in_its_units():
    draw = random.Random(0)
    for _ in range(60):
        layers = "".join(draw.choices("MG-", k=draw.randint(1, 11)))
        assert sum(len(unit.partition("·")[2]) for unit in units(layers)) == fewest(layers)
