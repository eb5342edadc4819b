"""Helpers for `sweep()` in a config file, which gives the points of a sweep to `launch.sweep`.

    def sweep():
        return product({"rlp.group_size": [4, 8], "rlp.horizon": [1, 2]}, {"seed": [1, 2, 3]})

A point is a dictionary of dotted fields and their values. A part, which the helpers take, is
either points one after another or a dictionary of fields, where a list (or tuple) stands for its
values in turn and anything else for itself.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Point = dict[str, Any]
Part = Mapping[str, Any] | Iterable[Mapping[str, Any]]


def product(*parts: Part) -> list[Point]:
    """Every combination of a point of each part; the last part changes fastest.

    Raises:
      ValueError: two parts set the same field.
    """
    return [_merge(points) for points in itertools.product(*map(_points, parts))]


def zipit(*parts: Part) -> list[Point]:
    """The first points of all parts together, then the second ones, and so on.

    The lists of one dictionary are taken side by side too: {"a": [1, 2], "b": [3, 4]} gives
    {"a": 1, "b": 3} and {"a": 2, "b": 4}.

    Raises:
      ValueError: they are not equally many, or two of them set the same field.
    """
    columns: list[list[Point]] = []
    for part in parts:
        if isinstance(part, Mapping):
            columns += [_points({field: values}) for field, values in part.items()]
        else:
            columns.append(_points(part))
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise ValueError(f"zipit takes equally many of everything, not {lengths}")
    return [_merge(points) for points in zip(*columns, strict=True)]


def chain(*parts: Part) -> list[Point]:
    """The points of all parts, one part after the other."""
    return [point for part in parts for point in _points(part)]


def _points(part: Part) -> list[Point]:
    if not isinstance(part, Mapping):
        return [dict(point) for point in part]
    columns = [_column(field, values) for field, values in part.items()]
    return [_merge(points) for points in itertools.product(*columns)]


def _column(field: str, values: Any) -> Iterator[Point]:
    for value in values if isinstance(values, list | tuple) else [values]:
        yield {field: value}


def _merge(points: Iterable[Point]) -> Point:
    merged: Point = {}
    for point in points:
        if twice := sorted(merged.keys() & point.keys()):
            raise ValueError(f"{', '.join(twice)} is set by two parts")
        merged |= point
    return merged
