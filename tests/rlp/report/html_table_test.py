"""The table on the page contains the metrics of the folders, and nothing else."""

import itertools
import json
from pathlib import Path

import pytest

from rlp import report
from rlp.report import columns
from tests.support.reports import ATTACK, FIGURE_KEYS, USED, make_run, read_page, write_json


def test_every_figure_of_the_summary_is_in_the_table_and_nothing_else(experiment: Path):
    found = read_page(experiment)
    summary = json.loads((experiment / "summary.json").read_text())
    assert list(found.rows) == ["base", "rlp", "cpt"]
    for arm, row in found.rows.items():
        expected = {key: [summary[arm][key]] for key in (*FIGURE_KEYS, *USED)}
        assert row == expected | {"train_seconds": [summary[arm]["wall_s"]["train"]]}


def test_accuracies_of_files_of_problems_stand_beside_the_others_in_every_table(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    overall = {"accuracy": 0.5, "any_accuracy": 0.9}
    by_file = {"accuracy/gsm8k": 0.25, f"accuracy/{ATTACK}": 0.75}
    evaluation = json.loads((folder / "evaluation.json").read_text())
    write_json(folder / "evaluation.json", evaluation | overall | by_file)
    (row,) = read_page(folder).rows.values()
    summary = overall | by_file
    assert {key: row[key] for key in summary} == {key: [value] for key, value in summary.items()}
    families = [metric.group for metric in columns.shown_columns([evaluation | summary])]
    assert len([*itertools.groupby(families)]) == len(set(families))  # each has one heading
    assert "img" not in read_page(folder).tags
    keys = ["accuracy", "accuracy/gsm8k"]
    assert report.markdown_table({"run": [summary]}, keys).splitlines() == [
        "| run   | Answers, correct, sampled | Answers, correct, gsm8k |",
        "| ----- | ------------------------: | ----------------------: |",
        "| `run` |                     0.500 |                   0.250 |",
    ]
    write_json(folder / "evaluation.json", evaluation | {"accuracy/gsm8k": "a quarter"})
    assert '"accuracy/gsm8k" is not a number' in read_page(folder).words


def test_shown_text_is_the_figure_rounded(experiment: Path):
    found = read_page(experiment)
    for (arm, key), text in found.cell_text.items():
        if key in FIGURE_KEYS:
            shown = text.strip().replace("−", "-")
            digits = len(shown.split(".")[1])
            assert float(shown) == pytest.approx(
                found.rows[arm][key][0], abs=0.5 * 10**-digits + 1e-9
            )


def test_plain_run_reports_its_last_evaluation_what_it_used_and_logged_seconds(tmp_path: Path):
    folder = make_run(tmp_path / "text")
    found = read_page(folder)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    row = found.rows["text"]
    assert all(row[key] == [evaluation[key]] for key in FIGURE_KEYS)
    assert all(row[key] == [lines[-1][key]] for key in USED)
    stages = ("seconds_data", "seconds_update", "seconds_rollout")
    seconds = sum(line[stage] for line in lines for stage in stages)
    assert row["train_seconds"] == [pytest.approx(seconds)]
