"""Group runs that are the same arm with different seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlp.report.load import Run, Source


@dataclass(frozen=True)
class Group:
    """Runs that share a row of the table and a color in the plots.

    Attributes:
        name: The name of the arm or run; preceded by its folder if the arm's name is ambiguous.
        runs: One run per seed.
    """

    name: str
    runs: tuple[Run, ...]


def group_runs(sources: Sequence[Source]) -> list[Group]:
    """Group the runs of all sources.

    Experiments whose configs differ only by the seed, with distinct seeds, are pooled: each of
    their arms is one group. Every other arm, and every plain run, is a group by itself.
    """
    pools = _seed_pools(sources)
    names = [p[0].name if len(p) == 1 else f"{p[0].name} and {len(p) - 1} more" for p in pools]
    return [
        group
        for name, pool in zip(names, pools, strict=True)
        for group in _pool_groups(pool, name if len(pools) > 1 else "")
    ]


def group_pools(pools: Mapping[str, Sequence[Source]]) -> list[Group]:
    """Group sources that are known to differ only by the seed, by the name of each pool."""
    groups = []
    for name, pool in pools.items():
        arms = _pool_groups(pool, name)
        groups += arms if pool[0].arms else [Group(name, group.runs) for group in arms]
    return groups


def _pool_groups(pool: Sequence[Source], prefix: str) -> list[Group]:
    """Return one group per arm of the sources of a pool, or one group if they are plain runs."""
    first = pool[0]
    return [
        Group(
            f"{prefix} / {run.name}" if first.arms and prefix else run.name,
            tuple(source.runs[position] for source in pool),
        )
        for position, run in enumerate(first.runs)
    ]


def _seed_pools(sources: Sequence[Source]) -> list[list[Source]]:
    """Pool the sources that are seeds of one experiment, keeping their order."""
    pools: dict[object, list[Source]] = {}
    for number, source in enumerate(sources):
        key: object = number
        if source.arms:
            settings = {k: v for k, v in source.config.items() if k != "seed"}
            arms = [run.name for run in source.runs]
            key = json.dumps([settings, arms], sort_keys=True)
        pools.setdefault(key, []).append(source)
    result: list[list[Source]] = []
    for pool in pools.values():
        seeds = {source.seed for source in pool}
        result += [pool] if len(seeds) == len(pool) else [[source] for source in pool]
    return result


def differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Find the config fields, except seeds, whose values differ between groups.

    Returns:
        Dotted field -> its value in each group as text, "" if a group does not have the field.
    """
    flat = [_flatten(group.runs[0].config) for group in groups]
    fields = dict.fromkeys(field for config in flat for field in config if field != "seed")
    table = {field: [config.get(field, "") for config in flat] for field in fields}
    return {field: values for field, values in table.items() if len(set(values)) > 1}


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
