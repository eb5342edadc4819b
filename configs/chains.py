"""A chain: from each of several starts, the same later stages, one on top of the other.

    config.arms = chains.arms(
        starts={"none": {"steps": 0}, "rlp": {"objective": "rlp"}},
        stages={"sft": {"data.sft.share": 1.0}, "rlvr": {"objective": "rlvr"}},
    )

gives the arms none, none_sft, none_rlvr, rlp, rlp_sft and rlp_rlvr of an experiment. A start is
called as it is here and starts from what its own fields or the config say; the first stage starts
from it, every later one from the stage before. `launch.pipeline` runs them and shows them as a table.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

Fields = Mapping[str, Any]  # dotted field to value


def arms(starts: Mapping[str, Fields], stages: Mapping[str, Fields]) -> ConfigDict:
    """The arms of a chain, for `config.arms`.

    Args:
      starts: name of each start to the fields in which it differs from the config.
      stages: the same of the later stages, in their order, for all starts alike.

    Raises:
      ValueError: a stage says what it starts from, or two arms have one name.
    """
    if own := [stage for stage, fields in stages.items() if "init_from" in fields]:
        raise ValueError(f"the stage {own[0]} sets init_from; it starts from the stage before it")
    made = ConfigDict(sort_keys=False)  # arms that wait for no other run in the order of the starts
    for start, fields in starts.items():
        _add(made, start, fields)
        before = start
        for stage, own_fields in stages.items():
            name = f"{start}_{stage}"
            _add(made, name, {"init_from": before, **own_fields})
            before = name
    return made


def changed(arm: ConfigDict, fields: Fields) -> ConfigDict:
    """An arm like another one but for some fields."""
    made = ConfigDict(arm.to_dict())
    _set(made, fields)
    return made


def _add(made: ConfigDict, name: str, fields: Fields) -> None:
    if name in made:
        raise ValueError(f"two arms of the chain are called {name!r}")
    made[name] = ConfigDict()
    _set(made[name], fields)


def _set(arm: ConfigDict, fields: Fields) -> None:
    for path, value in fields.items():
        *groups, field = path.split(".")
        place = arm
        for group in groups:
            if group not in place:
                place[group] = ConfigDict()
            place = place[group]
        place[field] = value
