"""The picture of held-out metrics over training FLOPs."""

import json
from pathlib import Path

import numpy as np
import pytest

from rlp import report
from rlp.metrics import catalogue
from rlp.report import comparison_plot
from rlp.runtime.errors import UserError
from tests.support.reports import make_experiment

THINK_LOSS = catalogue.find("evaluation/think_loss")


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    """Two seeds of an experiment whose arms rlp and cpt start from base."""
    folders = [make_experiment(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    for folder in folders:
        for arm in ("rlp", "cpt"):
            path = folder / arm / "config.json"
            config = json.loads(path.read_text())
            path.write_text(json.dumps(config | {"init_from": str(folder / "base")}))
    return folders


def read_groups(folders: list[Path]) -> list[report.Group]:
    return report.group_runs(report.load_folders(folders))


def test_arms_begin_at_the_arm_they_start_from_and_end_at_their_final_value(seeds: list[Path]):
    groups = read_groups(seeds)
    base, rlp, cpt = comparison_plot.build_curves(groups, THINK_LOSS)
    finals = {group.name: [run.summary["think_loss"] for run in group.runs] for group in groups}
    assert base.flops.tolist() == [0.0]
    np.testing.assert_array_equal(base.values[:, 0], finals["base"])
    for curve in (rlp, cpt):
        assert curve.values.shape == (2, len(curve.flops))
        assert (np.diff(curve.flops) > 0).all()
        np.testing.assert_array_equal(curve.values[:, 0], finals["base"])
        np.testing.assert_array_equal(curve.values[:, -1], finals[curve.group.name])


def test_runs_that_start_from_nothing_are_lines_of_their_own(tmp_path: Path):
    groups = read_groups([make_experiment(tmp_path / "demo")])
    curves = comparison_plot.build_curves(groups, THINK_LOSS)
    assert [curve.group.name for curve in curves] == ["base", "rlp", "cpt"]
    assert all(curve.flops[0] > 0 and len(curve.flops) > 1 for curve in curves)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_runs_give_the_same_bytes(seeds: list[Path], tmp_path: Path, suffix: str):
    out, written = tmp_path / f"plot{suffix}", []
    for _ in range(2):  # the second overwrites the first
        report.write_comparison(read_groups(seeds), ["think_loss", "flops"], out)
        written.append(out.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("name", "keys", "line"),
    [
        ("plot.pdf", ["think_loss"], "plot.pdf is not an .svg or .png file"),
        ("plot.svg", ["flops"], "no run measured flops during training"),
        ("mine.svg", ["think_loss"], "mine.svg exists already"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    seeds: list[Path], tmp_path: Path, name: str, keys: list[str], line: str
):
    (tmp_path / "mine.svg").write_text("<svg>mine</svg>")
    with pytest.raises(UserError, match=line):
        report.write_comparison(read_groups(seeds), keys, tmp_path / name)
    assert (tmp_path / "mine.svg").read_text() == "<svg>mine</svg>"
