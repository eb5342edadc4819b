"""The program that writes reports."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlp.metrics import catalogue
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT
from tests.support.reports import make_experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return make_experiment(tmp_path / "demo")


def run_program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(cwd)}
    command = [sys.executable, "-m", "launch.report", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_program_writes_into_one_folder_and_prints_table_and_path(experiment: Path):
    done = run_program("demo", cwd=experiment.parent)
    assert done.returncode == 0, done.stderr
    assert "Accuracy greedy thinking" in done.stdout
    assert done.stdout.splitlines()[-1] == "report: demo/report.html"
    assert (experiment / "report.html").exists()


def test_program_refuses_a_missing_folder_in_one_line(tmp_path: Path):
    done = run_program("none", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == "error: none does not exist; name a run folder or an experiment folder"
    )
    assert list(tmp_path.iterdir()) == []


def test_program_writes_the_table_as_markdown_with_the_figures_asked_for(experiment: Path):
    flags = ("--markdown=table.md", "--figures=greedy_think_accuracy,flops")
    done = run_program("demo", *flags, cwd=experiment.parent)
    assert done.returncode == 0, done.stderr
    head, _, *rows = (experiment.parent / "table.md").read_text().splitlines()
    assert head == "| run    | Accuracy, greedy thinking | Training, compute (FLOPs) |"
    assert [row.split("`")[1] for row in rows] == ["base", "rlp", "cpt"]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("page.html", ["--out=page.html"]),
        ("demo/report.html", []),
        ("demo/plots/loss.png", []),
        ("demo/plots/overview.png", []),
        ("table.md", ["--markdown=table.md"]),
        ("document.md", ["--markdown=document.md"]),
        ("plot.svg", ["--plot=plot.svg", "--figures=think_loss"]),
    ],
)
def test_a_file_that_is_not_a_report_is_not_overwritten(
    experiment: Path, name: str, flags: list[str], monkeypatch, capsys
):
    monkeypatch.chdir(experiment.parent)
    one = [metric for metric in catalogue.PLOTTED if metric.key == "loss"]
    monkeypatch.setattr(catalogue, "PLOTTED", one)  # drawing all of them takes seconds
    write = lambda: launched_report(["demo", *flags], monkeypatch)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    mine = "Mine:\n\n| run | x |\n| --- | - |\n" if name == "document.md" else "<p>RLP report: mine"
    path.write_text(mine)
    before = {p: p.is_file() and p.read_bytes() for p in experiment.parent.rglob("*")}
    with pytest.raises(UserError, match=f"^{name} exists already and is not what would be written"):
        write()
    assert {p: p.is_file() and p.read_bytes() for p in experiment.parent.rglob("*")} == before
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=f"^{name} exists already"):
        write()
    path.unlink()
    for _ in range(2):  # it overwrites its own files
        write()
        assert path.stat().st_size > len(mine)
    capsys.readouterr()


def launched_report(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program in this process."""
    from launch import report as program

    values = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
    values["figures"] = values["figures"].split(",") if "figures" in values else []
    for name in ("out", "markdown", "plot", "figures"):
        flag = SimpleNamespace(value=values.get(name, ""))
        monkeypatch.setattr(program, f"_{name.upper()}", flag)
    program.main([word for word in words if not word.startswith("--")])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--markdown=t.md", "--figures=loss"], "error: unknown metric loss; use one of"),
        (["--figures=flops"], "error: --figures selects metrics for --markdown=FILE or"),
        (["--plot=p.svg"], "error: --plot needs the metrics to draw; add --figures"),
        (["--markdown=no/t.md"], "error: no/t.md cannot be written: No such file or directory"),
    ],
)
def test_a_table_that_cannot_be_made_is_one_line(experiment: Path, flags: list[str], line: str):
    before = set(experiment.iterdir())
    done = run_program("demo", *flags, cwd=experiment.parent)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert set(experiment.iterdir()) == before
