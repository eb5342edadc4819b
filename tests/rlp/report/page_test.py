"""The page shows the content of the folders, and untrusted text cannot add anything to it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlp import report
from rlp.report import page
from tests.support.reports import ATTACK, make_run, read_page, write_json


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
    """In terminals, Markdown, the page, and plots, where matplotlib would parse formulas."""
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
    placed = report.arm_stages(dict.fromkeys(summaries, ""))
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
        for position, source in zip(document["positions"], original["positions"], strict=True):
            texts = [item["text"] for item in position["thoughts"]]
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
