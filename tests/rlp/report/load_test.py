"""Missing and damaged files are noted; folders that are not runs are refused."""

import json
import math
import os
import random
from pathlib import Path

import pytest

from rlp import report
from rlp.runtime.errors import UserError
from tests.support.reports import byte_thoughts, make_run, read_page, write_json


def test_missing_metrics_thoughts_and_evaluation_are_noted_not_fatal(tmp_path: Path):
    folder = make_run(tmp_path / "bare", "next_token")
    (folder / "thoughts.json").unlink()
    (folder / "evaluation.json").unlink()
    found = read_page(folder)
    assert found.rows["bare"]["no_think_accuracy"] == [None]
    assert "evaluation.json is missing" in found.words
    report.write_report([folder], folder / "report.html")
    names = {path.stem for path in (folder / "plots").iterdir()}
    assert "loss" in names
    assert "thought_entropy" not in names

    (folder / "metrics.jsonl").unlink()
    write_json(folder / "evaluation.json", {"step": 1, "no_think_accuracy": 0.5})
    assert read_page(folder).rows["bare"]["no_think_accuracy"] == [0.5]
    report.write_report([folder], tmp_path / "other" / "report.html")
    assert (tmp_path / "other" / "report.html").exists()
    assert not (tmp_path / "other" / "plots").exists()


def test_an_arm_without_a_folder_keeps_its_row(experiment: Path):
    for path in (experiment / "base").iterdir():
        path.unlink()
    (experiment / "base").rmdir()
    found = read_page(experiment)
    assert list(found.rows) == ["base", "rlp", "cpt"]
    assert "base is missing" in found.words


def test_a_line_cut_off_by_a_kill_is_left_out_and_said(tmp_path: Path):
    folder = make_run(tmp_path / "killed")
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + '{"step": 41, "lo')
    found = read_page(folder)
    assert "last line is incomplete" in found.words


def test_values_that_are_not_finite_are_neither_drawn_nor_fatal(tmp_path: Path):
    folder = make_run(tmp_path / "nan")
    line = {
        "step": 41,
        "loss": math.nan,
        "information_gain": math.inf,
        "flops": 1.0,
        "skipped_updates": 1,
    }
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    write_json(folder / "evaluation.json", {"step": 41, "think_loss": math.nan})
    found = read_page(folder)
    assert found.cell_text["nan", "think_loss"].strip() == "nan"
    assert "updates were skipped" in found.words
    assert json.loads(found.data)["plots"]


def bad_thought(folder: Path) -> None:
    content = byte_thoughts(random.Random(0))
    content["documents"][1]["positions"][2]["fork"] = 10**6
    write_json(folder / "thoughts.json", content)


REFUSED = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config": (lambda f: (f / "config.json").write_text("{"), "config.json, line 1"),
    "config list": (lambda f: write_json(f / "config.json", []), "config.json: must contain one"),
    "nested config": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        "nested more than",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_without_a_config_is_refused_and_nothing_is_written(tmp_path: Path, name: str):
    damage, message = REFUSED[name]
    folder = make_run(tmp_path / "run")
    damage(folder)
    with pytest.raises(UserError) as caught:
        report.write_report([folder], tmp_path / "out" / "report.html")
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def replace_line(number: int, text: bytes):
    """Replace one line of metrics.jsonl, counted from 1."""

    def damage(folder: Path) -> None:
        path = folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")
        lines[number - 1] = text
        path.write_bytes(b"\n".join(lines))

    return damage


def cut(name: str, share: float):
    """Truncate a file to this share of its bytes."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return damage


def a_pipe(name: str):
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


NOTED = {
    "a line of metrics": (replace_line(2, b"{oh}"), "of step 2 are missing"),
    "two lines": (replace_line(2, b"{\n\xff\xfe"), "metrics.jsonl, line 2: 2 lines are damaged"),
    "glued lines": (replace_line(3, b'{"step": 3, "lo{"step": 3}'), "line 3: a line is damaged"),
    "no step": (replace_line(2, b'{"loss": 1}'), "of step 2 are missing"),
    "a metric": (replace_line(7, b'{"step": 7, "loss": "a"}'), "of step 7 are missing"),
    "half of the metrics": (cut("metrics.jsonl", 0.5), "of steps 21 to 40 are missing"),
    "empty metrics": (cut("metrics.jsonl", 0), "of steps 1 to 40 are missing"),
    "not text": (lambda f: (f / "metrics.jsonl").write_bytes(b"\xff\n"), "of steps 1 to 40 are"),
    "a pipe": (a_pipe("metrics.jsonl"), "is not a regular file"),
    "evaluation": (cut("evaluation.json", 0.5), "no held-out metrics of this run are shown"),
    "empty evaluation": (cut("evaluation.json", 0), "no held-out metrics of this run are shown"),
    "evaluation metric": (
        lambda f: write_json(f / "evaluation.json", {"think_loss": "x"}),
        '"think_loss" is not',
    ),
    "evaluation number": (
        lambda f: (f / "evaluation.json").write_text('{"think_loss": "low"}'),
        '"think_loss" is not',
    ),
    "thoughts": (lambda f: write_json(f / "thoughts.json", {}), 'thoughts.json has no "documents"'),
    "half of the thoughts": (cut("thoughts.json", 0.5), "no thoughts of this run are shown"),
    "empty thoughts": (cut("thoughts.json", 0), "no thoughts of this run are shown"),
    "fork": (bad_thought, "document 1, position 2: fork 1000000 is outside"),
    "warnings": (
        lambda f: write_json(f / "warnings.json", [{"name": "x", "step": "2", "message": ""}]),
        "warnings.json: not a list",
    ),
    "empty warnings": (
        lambda f: (f / "warnings.json").write_text(""),
        "no warnings of this run are shown",
    ),
    "responses": (
        lambda f: write_json(f / "responses.json", {"problems": 3}),
        "no responses of this run are shown",
    ),
    "a pipe of responses": (a_pipe("responses.json"), "responses.json is not a file"),
}


@pytest.mark.parametrize("name", NOTED)
def test_damage_is_noted_on_the_page_and_in_the_log_and_the_rest_is_shown(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    damage, message = NOTED[name]
    folder = make_run(tmp_path / "run")
    damage(folder)
    found = read_page(folder)
    assert message in found.words
    assert message in caplog.text
    assert str(folder) in caplog.text
    assert list(found.rows) == ["run"]
    assert json.loads(found.data)["plots"] or "metrics" in name or name in ("not text", "a pipe")
    assert bool(json.loads(found.data)["runs"]) == ("thoughts" not in name and name != "fork")


@pytest.mark.parametrize("share", [0.5, None], ids=["half", "deleted"])
def test_metrics_of_a_stopped_run_that_are_missing_up_to_its_checkpoint_are_noted(
    tmp_path: Path, share: float | None, caplog: pytest.LogCaptureFixture
):
    folder = make_run(tmp_path / "run")
    if share is None:
        (folder / "metrics.jsonl").unlink()
        write_json(folder / "evaluation.json", {"think_loss": 1.0})
    else:
        cut("metrics.jsonl", share)(folder)
        (folder / "evaluation.json").unlink()
    for name in ("damaged", "20", "38", "39.orbax-checkpoint-tmp"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    found = read_page(folder).words
    missing = f"the metrics of steps {1 if share is None else 21} to 38 are missing from the curves"
    assert missing in found
    assert missing in caplog.text


def test_lines_in_another_order_are_shown_by_step_the_later_of_two(tmp_path: Path, caplog):
    folder = make_run(tmp_path / "run")
    shown = json.loads(read_page(folder).data)
    assert caplog.messages == []
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    other = json.dumps(json.loads(lines[4]) | {"grad_norm": 99.0}) + "\n"
    (folder / "metrics.jsonl").write_text("".join([other, *lines[9:], *lines[:9]]))
    assert json.loads(read_page(folder).data) == shown
    assert "skipped 1 line for steps that occur again" in caplog.text


def test_a_damaged_summary_is_named(experiment: Path):
    summary = json.loads((experiment / "summary.json").read_text())
    for change, message in (
        ({"arms": None}, '"arms" must list'),
        ({"cpt": 3}, 'arm "cpt" has no metrics'),
    ):
        write_json(experiment / "summary.json", summary | change)
        with pytest.raises(UserError, match="summary.json.*" + message):
            report.load_folders([experiment])


def test_folders_that_are_no_runs_are_refused(tmp_path: Path):
    run = make_run(tmp_path / "run")
    for folders, message in (
        ([], "no folder"),
        ([tmp_path / "none"], "does not exist"),
        ([run / "config.json"], "is a file"),
        ([run, tmp_path / "run"], "named twice"),
    ):
        with pytest.raises(UserError, match=message):
            report.load_folders(folders)
