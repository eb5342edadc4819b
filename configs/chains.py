"""A chain: several starts, each followed by the same stages, one after the other.

    config.arms = chains.arms(
        starts={"none": {"steps": 0}, "rlp": {"objective": "rlp"}},
        stages={"sft": {"data.sft.share": 1.0}, "rlvr": {"objective": "rlvr"}},
    )

defines the arms none, none_sft, none_rlvr, rlp, rlp_sft and rlp_rlvr of an experiment. A start begins
from the `init_from` of its own fields or of the config. The first stage begins from the start, and each
later one from the stage before it. `launch.pipeline` runs them and prints a table.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

Fields = Mapping[str, Any]  # value by dotted field


def arms(starts: Mapping[str, Fields], stages: Mapping[str, Fields]) -> ConfigDict:
    """Return the arms of a chain, for `config.arms`.

    Args:
      starts: the fields in which each start differs from the config, by name.
      stages: the same for the later stages, in order; all starts have the same stages.

    Raises:
      ValueError: A stage sets `init_from`, or two arms have the same name.
    """
    if starting := [stage for stage, fields in stages.items() if "init_from" in fields]:
        raise ValueError(f"the stage {starting[0]} sets init_from, but begins from the stage before it")
    chain = ConfigDict(sort_keys=False)  # independent arms run in the order of the starts
    for start, fields in starts.items():
        _add(chain, start, fields)
        before = start
        for stage, stage_fields in stages.items():
            name = f"{start}_{stage}"
            _add(chain, name, {"init_from": before, **stage_fields})
            before = name
    return chain


def changed(arm: ConfigDict, fields: Fields) -> ConfigDict:
    """Return a copy of an arm with some fields changed."""
    copy = ConfigDict(arm.to_dict())
    _set(copy, fields)
    return copy


def _add(chain: ConfigDict, name: str, fields: Fields) -> None:
    if name in chain:
        raise ValueError(f"two arms of the chain are called {name!r}")
    chain[name] = ConfigDict()
    _set(chain[name], fields)


def _set(arm: ConfigDict, fields: Fields) -> None:
    for path, value in fields.items():
        *groups, field = path.split(".")
        parent = arm
        for group in groups:
            if group not in parent:
                parent[group] = ConfigDict()
            parent = parent[group]
        parent[field] = value
