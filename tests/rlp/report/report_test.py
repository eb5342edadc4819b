"""The report: what stands on the page is what stood in the folders, and nothing else gets in."""

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import long_report
from rlp import report
from rlp.metrics import catalogue
from rlp.report import columns, curves, page, separate_process
from rlp.runtime.errors import UserError
from tests.support.paths import ROOT

ATTACK = "</script><img src=x onerror=alert(1)>"
HEADINGS = ("north", "east", "south", "west")
FIGURE_KEYS = (
    "no_think_accuracy", "greedy_think_accuracy", "sampled_think_accuracy", "no_think_loss",
    "think_loss", "mean_information_gain", "thought_length", "closed_fraction",
)  # fmt: skip
USED = ("flops", "tokens_documents", "seconds_device")


# ---- folders as training leaves them ----


def run_config(objective: str, seed: int, **changes: object) -> dict:
    return {
        "seed": seed,
        "objective": objective,
        "steps": 60,
        "model": {"num_layers": 2, "hidden_size": 128},
        "data": {"kind": "compass", "train": "", "tokenizer": "bytes"},
        "evaluation": {"documents": 512, "forks_per_document": 1},
        **changes,
    }


def evaluation_figures(rng: random.Random) -> dict:
    limits = dict.fromkeys(FIGURE_KEYS, (0.0, 1.0)) | {
        "no_think_loss": (0.5, 3.0),
        "think_loss": (0.02, 3.0),
        "mean_information_gain": (-1.0, 1.4),
        "thought_length": (3.0, 9.0),
    }
    return {key: rng.uniform(*limits[key]) for key in FIGURE_KEYS}


def metric_line(step: int, steps: int, objective: str, rng: random.Random) -> dict:
    done = step / steps
    noise = rng.gauss(0, 0.04)
    line = {
        "step": step,
        "loss": 0.4 + 3.6 * math.exp(-5 * done) + noise if objective == "next_token" else noise,
        "grad_norm": 0.3 + math.exp(-3 * done) + abs(rng.gauss(0, 0.2)),
        "no_think_loss": 1.2 - 0.1 * done + noise,
        "learning_rate": 3e-4,
        "tokens_documents": step * 1408,
        "flops": step * 2.9e9 * (1 if objective == "next_token" else 3),
        "seconds_device": step * 0.9,
        "seconds_data": 0.01,
        "seconds_update": 0.2,
        "skipped_updates": 0,
    }
    if objective == "rlp":
        line |= {
            "information_gain": 1.3 / (1 + math.exp(12 * (0.4 - done))) - 0.3 + noise,
            "reward_positive_share": min(1.0, 0.3 + 0.8 * done + noise),
            "thought_length": 6 + 2.5 * done + noise,
            "closed_fraction": min(1.0, 0.8 + 0.3 * done),
            "thought_entropy": 1.1 * (1 - done) + abs(noise),
            "zero_variance_share": min(1.0, done**3),
            "distinct_thoughts": 1 - 0.6 * done,
            "seconds_rollout": 0.1,
        }
    if step % (steps // 5) == 0:
        line |= {f"evaluation/{key}": value for key, value in evaluation_figures(rng).items()}
    return line


def compass_thoughts(rng: random.Random, skill: float) -> dict:
    """Word-level documents; one position each, at the answer, and two elsewhere."""
    documents = []
    for _ in range(3):
        moves = rng.choices(("left", "right", "around"), k=8)
        text = (
            f"<bos> Mia faces {rng.choice(HEADINGS)} . She turns {' '.join(moves)} . Now she faces"
        )
        tokens = [*text.split(), answer := rng.choice(HEADINGS), ".", "<eos>"]
        positions = []
        for fork in (3, 9, 19):
            thoughts = []
            for _ in range(8):
                right = rng.random() < skill
                reasoned = -0.02 if right else -rng.uniform(1, 6)
                words = rng.choices(HEADINGS, k=7) + [answer if right else "so"]
                thoughts.append(
                    thought(words, reasoned, reasoned + 1.39, closed=rng.random() < 0.9)
                )
            positions.append(position(fork, [tokens[fork]], -1.39, thoughts))
        documents.append({"tokens": tokens, "separator": " ", "positions": positions})
    return {"step": 60, "documents": documents}


def thought(pieces: list[str], reasoned: float, reward: float, closed: bool = True) -> dict:
    return {
        "pieces": pieces,
        "closed": closed,
        "reasoned_logprob": reasoned,
        "reward": reward,
        "advantage": reward / 2,
    }


def position(fork: int, target: list[str], baseline: float, thoughts: list[dict]) -> dict:
    gain = sum(item["reward"] for item in thoughts) / len(thoughts)
    return {
        "fork": fork,
        "target": target,
        "baseline_logprob": baseline,
        "information_gain": gain,
        "thoughts": thoughts,
    }


def byte_thoughts(rng: random.Random) -> dict:
    """Byte-level text: white space and control bytes among hundreds of tokens, and an attack."""
    prose = (
        "Definition 3.1 (Sentence).\nA formula is a sentence iff it has no free occurrences of "
        "variables.\n\n\tLet Γ be a set of sentences. We say that Γ is consistent iff Γ ⊬ ⊥, and "
        "inconsistent otherwise; a set that proves everything proves nothing of interest.\n"
    )
    documents = []
    for start in (prose * 2, "x" + ATTACK + "\x1b[31m\u202egnp.exe\n" + prose):
        tokens = list(start)
        positions = []
        for fork in sorted(rng.sample(range(1, len(tokens) - 4), 32) + [tokens.index("\n"), 13]):
            thoughts = [
                thought(list(words), -rng.uniform(0.1, 6), rng.gauss(0.1, 1.4), rng.random() < 0.7)
                for words in (ATTACK, "the next word\nis\tplain ", prose[:60], "so ", "é")
            ]
            positions.append(
                position(fork, tokens[fork : fork + 4], -rng.uniform(0.5, 6), thoughts)
            )
        documents.append({"tokens": tokens, "separator": "", "positions": positions})
    return {"step": 200, "documents": documents}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_metrics(folder: Path, objective: str, steps: int, rng: random.Random) -> None:
    lines = [metric_line(step, steps, objective, rng) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(folder: Path, objective: str = "rlp", seed: int = 0, **changes: object) -> Path:
    """A plain byte-level run."""
    rng = random.Random(f"{folder.name} {seed}")
    write_json(folder / "config.json", run_config(objective, seed, **changes))
    write_json(folder / "evaluation.json", {"step": 40, **evaluation_figures(rng)})
    write_metrics(folder, objective, 40, rng)
    write_json(folder / "thoughts.json", byte_thoughts(rng))
    return folder


def make_experiment(folder: Path, seed: int = 0, **changes: object) -> Path:
    """An experiment of three arms."""
    rng = random.Random(seed)
    write_json(folder / "config.json", run_config("rlp", seed, **changes))
    arms = {"base": ("next_token", 190), "rlp": ("rlp", 60), "cpt": ("next_token", 140)}
    summary: dict = {
        "seed": seed,
        "arms": list(arms),
        "versions": {"jax": "0.10.2"},
        "wall_s": 151.0,
    }
    for arm, (objective, steps) in arms.items():
        write_json(folder / arm / "config.json", run_config(objective, seed, steps=steps))
        write_metrics(folder / arm, objective, steps, rng)
        write_json(
            folder / arm / "thoughts.json",
            compass_thoughts(random.Random(7), 0.9 if arm == "rlp" else 0.3),
        )
        cost = {
            "flops": steps * 1.7e10,
            "tokens_documents": steps * 1408,
            "seconds_device": 80 + rng.random(),
            "steps": steps,
            "wall_s": {"train": 20 + rng.random(), "evaluate": 3.5},
        }
        summary[arm] = {**evaluation_figures(rng), **cost}
    write_json(folder / "summary.json", summary)
    return folder


# ---- reading a page back ----


class Reader(HTMLParser):
    """What a browser would find: the elements, the cells of the table, the embedded data."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: dict[str, dict[str, list[float | None]]] = {}
        self.cell_text: dict[tuple[str, str], str] = {}
        self.data = ""
        self.words = ""
        self._row = self._column = ""
        self._in_head = self._in_data = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        found = dict(attrs)
        if tag == "th" and found.get("scope") == "row":
            self._row, self._in_head = "", True
        elif tag == "span":
            self._in_head = False
        if values := found.get("data-values"):
            self._column = found["data-figure"] or ""
            numbers = [None if v == "null" else float(v) for v in values.split()]
            self.rows.setdefault(self._row, {})[self._column] = numbers
        self._in_data = found.get("id") == "report-data"

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._column = ""
        self._in_data = False

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._in_head:
            self._row += data
        if self._column:
            key = (self._row, self._column)
            self.cell_text[key] = self.cell_text.get(key, "") + data + " "
        if self._in_data:
            self.data += data


def read_page(*folders: Path) -> Reader:
    """The page over the folders, without writing it and its plots."""
    sources = report.load_folders(folders)
    return Reader(page.render(sources, report.group_runs(sources)))


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return make_experiment(tmp_path / "demo")


# ---- the table ----


def test_every_figure_of_the_summary_is_in_the_table_and_nothing_else(experiment: Path):
    found = read_page(experiment)
    summary = json.loads((experiment / "summary.json").read_text())
    assert list(found.rows) == ["base", "rlp", "cpt"]
    for arm, row in found.rows.items():
        expected = {key: [summary[arm][key]] for key in (*FIGURE_KEYS, *USED)}
        assert row == expected | {"train_seconds": [summary[arm]["wall_s"]["train"]]}


def test_accuracies_of_files_of_problems_stand_beside_the_others_in_every_table(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    figures_of_answers = {"accuracy": 0.5, "any_accuracy": 0.9}
    of_files = {"accuracy/gsm8k": 0.25, f"accuracy/{ATTACK}": 0.75}
    evaluation = json.loads((folder / "evaluation.json").read_text())
    write_json(folder / "evaluation.json", evaluation | figures_of_answers | of_files)
    (row,) = read_page(folder).rows.values()
    summary = figures_of_answers | of_files
    assert {key: row[key] for key in summary} == {key: [value] for key, value in summary.items()}
    families = [metric.group for metric in columns.shown_columns([evaluation | summary])]
    assert len([*itertools.groupby(families)]) == len(set(families))  # each has one head
    assert "img" not in read_page(folder).tags
    keys = ["accuracy", "accuracy/gsm8k"]
    assert report.markdown_table({"run": [summary]}, keys).splitlines() == [
        "| run   | Answers, right, sampled | Answers, right, gsm8k |",
        "| ----- | ----------------------: | --------------------: |",
        "| `run` |                   0.500 |                 0.250 |",
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
            shown, *each = found.cell_text[arm, key].replace("−", "-").split()
            assert float(shown) == pytest.approx(
                sum(values) / 3, abs=0.051 if key == "thought_length" else 0.00051
            )
            assert len(each) == 3


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


@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=4), min_size=2, max_size=4))
@settings(deadline=None)
def test_a_row_is_best_only_if_all_its_seeds_beat_all_other_seeds(rows: list[list[float]]):
    best = columns.clearly_best(rows, False)
    separated = [
        n
        for n, row in enumerate(rows)
        if all(v > w for v in row for m, other in enumerate(rows) if m != n for w in other)
    ]
    assert ([] if best is None else [best]) == separated
    assert columns.clearly_best([[-v for v in row] for row in rows], True) == best


def test_nothing_is_called_best_on_fewer_than_three_seeds_or_an_unknown_figure():
    assert columns.clearly_best([[1.0, 1.0], [0.0, 0.0]], False) is None
    assert columns.clearly_best([[1.0] * 3, [0.0, 0.0, None]], False) is None
    assert columns.clearly_best([[1.0] * 3, [0.0] * 3], None) is None


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


def test_markdown_has_a_row_per_run_with_the_mean_and_the_ends_of_its_seeds():
    seeds = [{"think_loss": 1.0, "flops": 2e9}, {"think_loss": 2.5, "flops": 2e9}, {"flops": 2e9}]
    table = report.markdown_table({"rlp": seeds, "b": [{}]}, ["flops", "think_loss"])
    assert table.splitlines() == [
        "| run   | Training, compute (FLOPs) | Loss, thinking (nats/token) |",
        "| ----- | ------------------------: | --------------------------: |",
        "| `rlp` |                    2.00e9 |        1.750 [1.000, 2.500] |",
        "| `b`   |                         - |                           - |",
    ]
    every = report.markdown_table({"rlp": seeds}).splitlines()
    assert every[0].count("|") == 2 + len(columns.shown_columns([]))


# ---- nothing gets in ----


def test_text_from_models_configs_and_names_adds_no_element(tmp_path: Path):
    def tags(folder: Path) -> list[str]:
        found = read_page(folder)
        assert not [name for name, _ in found.attributes if name.startswith("on")]
        return found.tags

    hostile = "<img src=x onerror=alert(1)>"
    harmless = make_run(tmp_path / "plain", note="y", data={"kind": "text", "train": "z"})
    attacked = make_run(tmp_path / hostile, note=ATTACK, data={"kind": "text", "train": ATTACK})
    assert tags(attacked) == tags(harmless)
    assert "img" not in tags(attacked)


def test_names_of_others_move_nothing_wherever_they_are_shown(tmp_path: Path):
    """A terminal, Markdown, the page and the plots, whose legends would read formulas in names."""
    names = ["a\x1b[2J|b", "c\u202etxt `d` $\\frac{$", "e\udcff"]
    folders = [make_run(tmp_path / f"run {n}").rename(tmp_path / x) for n, x in enumerate(names)]
    for folder in folders:  # one plot is enough
        (folder / "metrics.jsonl").write_text('{"step": 1, "grad_norm": 1}\n')
    file = json.loads((folders[0] / "evaluation.json").read_text())
    file["accuracy/\x1b]0;x\x07|<b>.jsonl"] = 0.5
    write_json(folders[0] / "evaluation.json", file)
    sources = report.load_folders(folders)
    summaries = {group.name: group.runs[0].summary for group in report.group_runs(sources)}
    report.write_sources(sources, tmp_path / "out" / "report.html", title="t")
    terminal = report.terminal_table(summaries, 1000)
    markdown = report.markdown_table({name: [one] for name, one in summaries.items()})
    placed = report.places(dict.fromkeys(summaries, ""))
    chain = report.chain_table(placed, summaries, {})
    web = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for shown in (terminal, markdown, chain, web):
        shown.encode()
        assert not {"\x1b", "\x07", "\u202e", "\udcff"} & set(shown)
        assert "\\x1b" in shown
        assert "\\u202e" in shown
    for table in (markdown, chain):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert (tmp_path / "out" / "plots" / "overview.png").is_file()


def test_thoughts_reach_the_page_unchanged_as_data(tmp_path: Path):
    folder = make_run(tmp_path / "text")
    found = read_page(folder)
    (shown,) = json.loads(found.data)["runs"]
    written = json.loads((folder / "thoughts.json").read_text())["documents"]
    for document, original in zip(shown["documents"], written, strict=True):
        assert document["tokens"] == original["tokens"]
        for place, source in zip(document["positions"], original["positions"], strict=True):
            texts = [item["text"] for item in place["thoughts"]]
            assert texts == ["".join(item["pieces"]) for item in source["thoughts"]]
            assert ATTACK in texts


@given(st.recursive(st.text() | st.floats() | st.none(), lambda inner: st.lists(inner, max_size=3)))
def test_embedded_json_cannot_end_its_script_and_always_parses(content: object):
    text = page.json_for_html(content)
    assert "<" not in text
    assert text.isascii()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_page_asks_nothing_of_a_network(experiment: Path):
    found = read_page(experiment)
    contents = [value or "" for name, value in found.attributes if name == "content"]
    assert any("default-src 'none'" in value for value in contents)
    assert not [v for name, v in found.attributes if name in ("src", "href", "srcset", "action")]
    assert not {"link", "iframe", "object", "embed", "base"} & set(found.tags)


# ---- warnings ----


def test_warnings_stand_on_the_page_with_run_and_step_and_nothing_where_there_are_none(
    experiment: Path,
):
    assert ("id", "warnings") not in read_page(experiment).attributes
    warning = {"name": "entropy_collapse", "step": 22, "message": f"fell to 0.02 {ATTACK}"}
    write_json(experiment / "rlp" / "warnings.json", [warning])
    write_json(experiment / "base" / "warnings.json", [])
    found = read_page(experiment)
    assert ("id", "warnings") in found.attributes
    assert f"rlp, step 22entropy_collapse: fell to 0.02 {ATTACK}" in found.words
    assert "img" not in found.tags


# ---- what is missing, what is damaged ----


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
    assert "last line is unfinished" in found.words


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
    "config list": (lambda f: write_json(f / "config.json", []), "config.json: must hold one"),
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
    """Puts another line into the place of one of metrics.jsonl, counted from 1."""

    def damage(folder: Path) -> None:
        path = folder / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")
        lines[number - 1] = text
        path.write_bytes(b"\n".join(lines))

    return damage


def cut(name: str, share: float):
    """Leaves the first part of a file."""

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
    "a figure": (replace_line(7, b'{"step": 7, "loss": "a"}'), "of step 7 are missing"),
    "half of the metrics": (cut("metrics.jsonl", 0.5), "of steps 21 to 40 are missing"),
    "empty metrics": (cut("metrics.jsonl", 0), "of steps 1 to 40 are missing"),
    "not text": (lambda f: (f / "metrics.jsonl").write_bytes(b"\xff\n"), "of steps 1 to 40 are"),
    "a pipe": (a_pipe("metrics.jsonl"), "is not a regular file"),
    "evaluation": (cut("evaluation.json", 0.5), "no held-out figures of this run are shown"),
    "empty evaluation": (cut("evaluation.json", 0), "no held-out figures of this run are shown"),
    "evaluation figure": (
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
    assert "1 of the lines are of steps that are there again" in caplog.text


def test_a_damaged_summary_is_named(experiment: Path):
    summary = json.loads((experiment / "summary.json").read_text())
    for change, message in (
        ({"arms": None}, '"arms" must list'),
        ({"cpt": 3}, 'arm "cpt" has no figures'),
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


# ---- curves and plots ----


def line(values: dict[int, float]) -> curves.Line:
    steps = np.array(list(values), float)
    return curves.Line(steps, 10.0 * steps, np.array(list(values.values())))


def points(line: curves.Line) -> list[tuple[float, float, float]]:
    return list(zip(line.steps.tolist(), line.flops.tolist(), line.values.tolist(), strict=True))


def test_mean_over_seeds_is_taken_where_all_seeds_have_the_step():
    mean = curves.mean_line([line({1: 1.0, 2: 5.0, 3: 9.0}), line({2: 7.0, 3: 1.0, 4: 0.0})])
    assert points(mean) == [(2, 20, 6), (3, 30, 5)]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200), st.floats(-2, 2), st.floats(-9, 9))
@settings(deadline=None)
def test_running_mean_keeps_ends_and_straight_lines(
    values: list[float], slope: float, start: float
):
    smoothed = curves.smooth(line(dict(enumerate(values)))).values
    assert smoothed[0] == pytest.approx(values[0], abs=1e-6)
    assert smoothed[-1] == pytest.approx(values[-1], abs=1e-6)
    straight = [start + slope * n for n in range(len(values))]
    assert curves.smooth(line(dict(enumerate(straight)))).values == pytest.approx(
        straight, abs=1e-6
    )


@given(
    st.lists(st.floats(-1e3, 1e3) | st.sampled_from([-1e9, 1e9]), min_size=1, max_size=500),
    st.integers(4, 60),
)
@settings(deadline=None)
def test_a_line_drawn_in_fewer_points_keeps_its_ends_and_every_extreme(
    values: list[float], most: int
):
    whole = line(dict(enumerate(values)))
    drawn = curves.extremes(whole, most)
    assert len(drawn.values) <= most
    assert set(points(drawn)) <= set(points(whole))
    assert drawn.steps.tolist() == sorted(set(drawn.steps.tolist()))
    assert points(drawn)[0] == points(whole)[0]
    assert points(drawn)[-1] == points(whole)[-1]
    if len(values) <= most:
        assert points(drawn) == points(whole)
    # Nothing of the line lies beyond what is drawn in two bins around it.
    reach = 2 * math.ceil(len(values) / ((most - 2) // 2))
    near = lambda step: drawn.values[np.abs(drawn.steps - step) < reach]
    assert all(min(near(step)) <= value <= max(near(step)) for step, value in enumerate(values))


def test_a_single_odd_step_of_a_long_run_is_on_the_page(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 3001):
            file.write(
                json.dumps({"step": step, "grad_norm": 50.0 if step == 1234 else 1.0}) + "\n"
            )
    (plot,) = json.loads(read_page(folder).data)["plots"]
    ((thin,), bold) = (plot["series"][0][name] for name in ("lines", "bold"))
    assert dict(zip(thin["step"], thin["y"], strict=True))[1234] == 50.0
    assert max(len(thin["y"]), len(bold["y"])) <= page.MOST_POINTS
    assert max(bold["y"]) < 2


@pytest.mark.slow
def test_the_report_of_100_000_steps_takes_less_than_500_mb(tmp_path: Path):
    folder = long_report.write_run(tmp_path / "run", 100_000)
    # From a small process: what a child is told to have used begins with the memory of its parent.
    code = f"from benchmarks import long_report as l; print(l.cost(l.Path({str(folder)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    seconds, most = eval(ran.stdout)
    assert most < 500e6
    assert seconds < 120  # 10 on an idle machine
    assert (folder / "report.html").stat().st_size < 2e6


# ---- in a process of its own


def test_a_report_that_is_made_apart_is_the_same_without_jax(experiment: Path, tmp_path, caplog):
    (experiment / "rlp" / "thoughts.json").write_text("")
    report.write_report([experiment], tmp_path / "here" / "report.html")
    caplog.clear()
    report.write_report_separately([experiment], tmp_path / "there" / "report.html")
    (message,) = caplog.messages
    assert "no thoughts of this run are shown" in message
    written = lambda name: {
        path.relative_to(tmp_path / name): path.read_bytes()
        for path in (tmp_path / name).rglob("*")
        if path.is_file()
    }
    assert written("here") == written("there")
    code = "import sys, rlp.report, rlp.report.plots, rlp.report.page; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "False\n"


def test_what_goes_wrong_apart_is_one_line(experiment: Path, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="report.html exists already and is not what would be"):
        report.write_report_separately([experiment], out)
    assert out.read_text() == "mine"
    out.unlink()
    for code, reason in {
        "import os; os.kill(os.getpid(), 9)": "its process was ended by SIGKILL",
        "raise MemoryError('all of it')": "MemoryError: all of it",
        "raise SystemExit(3)": "exit status 3",
    }.items():
        (tmp_path / "rlp" / "report").mkdir(parents=True, exist_ok=True)
        (tmp_path / "rlp" / "report" / "__main__.py").write_text(code)
        monkeypatch.setattr(separate_process, "ROOT", tmp_path)
        with pytest.raises(UserError) as caught:
            report.write_report_separately([experiment], out)
        assert f"{out} could not be made: {reason}; what was trained is saved" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_process_ends_when_nobody_waits_for_it(experiment: Path, tmp_path):
    words = [sys.executable, "-m", "rlp.report", str(tmp_path / "report.html"), str(experiment)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(60) == 1
    assert not (tmp_path / "report.html").exists()


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300), st.integers(1, 50))
@settings(deadline=None)
def test_thinning_keeps_the_mean_and_the_limit(values: list[float], most: int):
    size = math.ceil(len(values) / most)
    thinned = curves.thin(line(dict(enumerate(values))), most).values
    assert len(thinned) <= most
    weights = [min(size, len(values) - n * size) for n in range(len(thinned))]
    total = math.fsum(v * w for v, w in zip(thinned, weights, strict=True))
    assert total == pytest.approx(math.fsum(values), abs=1e-6)


def test_surrogate_loss_of_rlp_is_not_shown_as_next_token_loss(experiment: Path):
    plots = curves.build_plots(report.group_runs(report.load_folders([experiment])))
    (loss,) = [plot for plot in plots if plot.metric.key == "loss"]
    assert [series.name for series in loss.series] == ["base", "cpt"]


def test_a_png_for_every_metric_that_a_run_has(experiment: Path):
    from matplotlib.image import imread

    report.write_report([experiment], experiment / "report.html")
    plots = curves.build_plots(report.group_runs(report.load_folders([experiment])))
    names = {plot.metric.key.replace("/", "_") for plot in plots} | {"overview"}
    assert {f"evaluation_{key}" for key in FIGURE_KEYS} < names
    assert {path.name for path in (experiment / "plots").iterdir()} == {f"{n}.png" for n in names}
    for path in (experiment / "plots").iterdir():
        image = imread(path)
        assert min(image.shape[:2]) > 200
        assert image.std() > 0.01


# ---- the program ----


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
        == "error: none does not exist: name a run folder or an experiment folder"
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
    for _ in range(2):  # its own it does
        write()
        assert path.stat().st_size > len(mine)
    capsys.readouterr()


def launched_report(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the program in this process."""
    from launch import report as program

    given = dict(word.removeprefix("--").split("=") for word in words if word.startswith("--"))
    for name, default in {"out": "", "markdown": "", "figures": []}.items():
        flag = SimpleNamespace(value=given.get(name, default))
        monkeypatch.setattr(program, f"_{name.upper()}", flag)
    program.main([word for word in words if not word.startswith("--")])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--markdown=t.md", "--figures=loss"], "error: loss is no figure of a run; these are:"),
        (["--figures=flops"], "error: --figures are columns of the table of --markdown=FILE"),
        (["--markdown=no/t.md"], "error: no/t.md cannot be written: No such file or directory"),
    ],
)
def test_a_table_that_cannot_be_made_is_one_line(experiment: Path, flags: list[str], line: str):
    before = set(experiment.iterdir())
    done = run_program("demo", *flags, cwd=experiment.parent)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert set(experiment.iterdir()) == before
