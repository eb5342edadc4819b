"""Which runs share a row: only seeds of one experiment."""

import json
from pathlib import Path

import pytest

from rlp import report
from tests.support.reports import FIGURE_KEYS, make_experiment, make_run, read_page


def test_every_run_and_arm_has_its_own_row(tmp_path: Path, experiment: Path):
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    found = read_page(experiment, *runs)
    assert list(found.rows) == ["demo / base", "demo / rlp", "demo / cpt", "a", "b"]


def test_folders_of_one_name_are_told_apart(tmp_path: Path):
    runs = [make_run(tmp_path / parent / "run") for parent in ("first", "second")]
    found = read_page(*runs)
    assert list(found.rows) == [str(run) for run in runs]


def test_experiments_that_differ_by_seed_are_averaged_over_seeds(tmp_path: Path):
    folders = [make_experiment(tmp_path / f"s{seed}", seed) for seed in (0, 1, 2)]
    found = read_page(*folders)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert list(found.rows) == ["base", "rlp", "cpt"]
    for arm, row in found.rows.items():
        for key in FIGURE_KEYS:
            values = [summary[arm][key] for summary in summaries]
            assert row[key] == values
            shown, *by_seed = found.cell_text[arm, key].replace("−", "-").split()
            assert float(shown) == pytest.approx(
                sum(values) / 3, abs=0.051 if key == "thought_length" else 0.00051
            )
            assert len(by_seed) == 3


def test_runs_that_are_known_to_be_seeds_are_averaged(tmp_path: Path):
    gains = {"a": (0.1, 0.4), "b": (0.3,)}
    pools: dict[str, list[report.Source]] = {}
    for name, values in gains.items():
        for seed, gain in enumerate(values):
            folder = tmp_path / f"{name},seed={seed}"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({"seed": seed}))
            (folder / "evaluation.json").write_text(
                json.dumps({"step": 1, "mean_information_gain": gain})
            )
            pools.setdefault(name, []).extend(report.load_folders([folder]))
    groups = report.group_pools(pools)
    assert [group.name for group in groups] == ["a", "b"]
    for group in groups:
        found = [run.summary["mean_information_gain"] for run in group.runs]
        assert tuple(found) == gains[group.name]
    sources = [source for pool in pools.values() for source in pool]
    report.write_sources(sources, tmp_path / "page.html", groups, "both of them")
    text = (tmp_path / "page.html").read_text()
    assert "<title>RLP report: both of them</title>" in text
    assert 'data-values="0.1 0.4"' in text


def test_arms_of_known_seeds_keep_their_names_behind_that_of_their_point(experiment: Path):
    sources = report.load_folders([experiment])
    (alone,) = {group.name.split(" / ")[0] for group in report.group_pools({"x=1": sources})}
    assert alone == "x=1"


@pytest.mark.parametrize("change", [{"steps": 61}, {"seed": 0}], ids=["setting", "same seed"])
def test_experiments_that_are_not_seeds_of_one_another_are_not_averaged(
    tmp_path: Path, change: dict
):
    first = make_experiment(tmp_path / "a", 0)
    second = make_experiment(tmp_path / "b", change.pop("seed", 1), **change)
    found = read_page(first, second)
    assert len(found.rows) == 6
