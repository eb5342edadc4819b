"""The tables of docs/objectives.md agree with the code."""

import dataclasses
import re
from pathlib import Path

from rlp.engine.readings import READINGS
from rlp.objectives import Objective
from rlp.objectives.equations import ADVANTAGES
from rlp.objectives.registry import OBJECTIVES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry():
    names = {function: name for name, function in ADVANTAGES.items()}
    expected = [
        f"| `{name}` | {o.formula} | `{names[o.advantages]}` | "
        f"{'yes' if o.target_weights else ''} | {o.source} |"
        for name, o in OBJECTIVES.items()
    ]
    rows = [line.replace("\\|", "|") for line in PAGE.splitlines() if line.startswith("| `")]
    assert rows[1 : len(expected) + 1] == expected  # below the table's header


def test_the_table_of_readings_is_the_one_of_the_engine():
    table = PAGE.partition("## Readings")[2]
    expected = [
        f"| `{name}` | {reading.meaning} | {reading.cost} | {', '.join(reading.needs)} |"
        for name, reading in READINGS.items()
    ]
    assert [line for line in table.splitlines() if line.startswith("| `")] == expected


def test_every_field_of_an_objective_is_explained():
    table = PAGE.partition("## Your own")[2].partition("## Readings")[0]
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M))))
    fields = {field.name for field in dataclasses.fields(Objective)}
    assert explained == fields - {"weighs_planning"}  # internal
