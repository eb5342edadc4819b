"""Which runs are the same arm under another seed, and which stand for themselves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlp.report.load import Run, Source


@dataclass(frozen=True)
class Group:
    """A row of the table, a colour of the plots.

    Attributes:
        name: of the arm or run; with its folder in front where the arm alone would not tell.
        runs: one per seed.
    """

    name: str
    runs: tuple[Run, ...]


def group_runs(sources: Sequence[Source]) -> list[Group]:
    """Groups the runs of all sources.

    Experiments whose configs differ in nothing but the seed, with no seed twice, are seeds of one
    experiment: each of their arms is one group. Every other arm, and every plain run, is its own.
    """
    pools = _seed_pools(sources)
    names = [p[0].name if len(p) == 1 else f"{p[0].name} and {len(p) - 1} more" for p in pools]
    return [
        group
        for name, pool in zip(names, pools, strict=True)
        for group in _pool_groups(pool, name if len(pools) > 1 else "")
    ]


def group_pools(pools: Mapping[str, Sequence[Source]]) -> list[Group]:
    """Groups of sources that are known to be seeds of one another, by the name of each pool."""
    groups = []
    for name, pool in pools.items():
        made = _pool_groups(pool, name)
        groups += made if pool[0].arms else [Group(name, group.runs) for group in made]
    return groups


def _pool_groups(pool: Sequence[Source], prefix: str) -> list[Group]:
    """One group per arm of the sources of a pool, or one if they are plain runs."""
    first = pool[0]
    return [
        Group(
            f"{prefix} / {run.name}" if first.arms and prefix else run.name,
            tuple(source.runs[position] for source in pool),
        )
        for position, run in enumerate(first.runs)
    ]


def _seed_pools(sources: Sequence[Source]) -> list[list[Source]]:
    """The sources in order, those that are seeds of one experiment together."""
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
    """Config fields whose values are not the same in all groups, seeds aside.

    Returns:
        field (dotted) -> its value in each group as text, "" where the group has no such field.
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
