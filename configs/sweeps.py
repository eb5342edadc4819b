"""Helpers for `sweep()` of a config file, which returns the points of a sweep for `launch.sweep`.

    def sweep():
        return product({"rlp.group_size": [4, 8], "rlp.horizon": [1, 2]}, {"seed": [1, 2, 3]})

A point is a dictionary of values by dotted field. The helpers take parts: a part is either an
iterable of points, or a dictionary of fields in which a list (or tuple) lists the values of a field
and anything else is a single value.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Point = dict[str, Any]
Part = Mapping[str, Any] | Iterable[Mapping[str, Any]]


def product(*parts: Part) -> list[Point]:
    """Return every combination of one point of each part; the last part changes fastest.

    Raises:
      ValueError: Two parts set the same field.
    """
    return [_merge(points) for points in itertools.product(*map(_points, parts))]


def zipit(*parts: Part) -> list[Point]:
    """Combine the first points of all parts, then the second ones, and so on.

    The lists of one dictionary are combined in the same way: {"a": [1, 2], "b": [3, 4]} gives
    {"a": 1, "b": 3} and {"a": 2, "b": 4}.

    Raises:
      ValueError: The parts differ in length, or two of them set the same field.
    """
    columns: list[list[Point]] = []
    for part in parts:
        if isinstance(part, Mapping):
            columns += [_points({field: values}) for field, values in part.items()]
        else:
            columns.append(_points(part))
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise ValueError(f"zipit takes parts and lists of the same length, not {lengths}")
    return [_merge(points) for points in zip(*columns, strict=True)]


def chain(*parts: Part) -> list[Point]:
    """Return the points of all parts, one part after the other."""
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
