"""Tables for the terminal."""

import json
from pathlib import Path

import pytest

from rlp import report


def test_terminal_table_is_aligned_and_keeps_within_its_width(experiment: Path):
    summary = json.loads((experiment / "summary.json").read_text())
    rows = {arm: summary[arm] for arm in summary["arms"]}
    lines = report.terminal_table(rows).splitlines()
    assert lines[0].split() == ["base", "rlp", "cpt"]
    assert len({len(line) for line in lines}) == 1
    shown = next(line for line in lines if line.startswith("Accuracy no-think")).split()[-3:]
    assert [float(text) for text in shown] == [
        pytest.approx(row["no_think_accuracy"], abs=5e-4) for row in rows.values()
    ]
    many = report.terminal_table({f"run number {n}": summary["rlp"] for n in range(9)}, width=80)
    assert max(map(len, many.splitlines())) <= 80
    assert all(f"run number {n}" in many for n in range(9))
