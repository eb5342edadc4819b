"""The report about problems of task files in a corpus, and the program that writes it."""

import json

import pytest

from rlp.data.contamination import SHOWN, examine, table
from rlp.runtime.errors import UserError

CROW = "a crow saw three old ships sail past the red rocks at noon"
SHOP = "Ann has {} pens and buys {} more pens in the little shop beside the old school house."
TASK = [{"q": "too short", "a": ["no"]}, {"q": SHOP.format(3, 4)}, {"q": CROW, "a": ["yes"]}]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def corpus(tmp_path):
    """Three files of text with overlaps at known places, and two task files."""
    rows = [{"body": text} for text in ("nothing", " ", f"He said: {CROW.title()}!", CROW)]
    lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.txt").write_text(f"none\n\n{SHOP.format(8, 9)}\n\nso {SHOP.format(3, 4)}")
    lines(tmp_path / "task.jsonl", TASK)
    lines(tmp_path / "other.jsonl", [{"q": f"{CROW} again"}])
    return tmp_path


def test_a_report_names_problems_and_documents(corpus):
    paths = {name: str(corpus / name) for name in ("a.jsonl", "b.txt", "task.jsonl", "other.jsonl")}
    report = examine(
        f"{paths['a.jsonl']},{paths['b.txt']}",
        f"{paths['task.jsonl']},{paths['other.jsonl']}",
        text_column="body",
        txt_separator="\n\n",
    )
    assert report["text"] == {
        "files": [paths["a.jsonl"], paths["b.txt"]],
        "documents": 6,
        "characters": sum(map(len, ["nothing", f"He said: {CROW}!", CROW, "none", "so "]))
        + 2 * len(SHOP.format(3, 4)),
        "overlapping": {"words": 3, "numbers": 1, "templates": 2},
    }
    crows = [f"{paths['a.jsonl']}, line {line}" for line in (3, 4)]
    shops = [f"{paths['b.txt']}, document {number}" for number in (2, 3)]
    hit = lambda problem, where: {"problem": problem, "documents": len(where), "first": where}
    task, other = report["tasks"]
    assert (task["file"], task["problems"]) == (paths["task.jsonl"], 3)
    assert task["overlaps"] == {
        "words": {"problems": 2, "too_short": 1, "found": [hit(1, shops[1:]), hit(2, crows)]},
        "numbers": {"problems": 1, "too_short": 2, "found": [hit(1, shops[1:])]},
        "templates": {"problems": 1, "too_short": 2, "found": [hit(1, shops)]},
    }
    assert other["overlaps"]["words"]["found"] == [hit(0, crows)]
    head, first, *_ = table(report).splitlines()
    names = "task file overlap of problems found share too short rows"
    assert " ".join(head.split()) == names
    assert first.split()[1:] == ["words", "3", "2", "66.7%", "1", "1", "2"]


def test_of_many_documents_the_number_is_kept_and_the_first(tmp_path):
    text = lines(tmp_path / "a.jsonl", [{"text": CROW}] * (SHOWN + 5))
    report = examine(text, lines(tmp_path / "task.jsonl", TASK), columns=["q"])
    (found,) = report["tasks"][0]["overlaps"]["words"]["found"]
    assert found["documents"] == SHOWN + 5
    assert found["first"] == [f"{text}, line {line + 1}" for line in range(SHOWN)]


def test_columns_select_texts(corpus):
    with pytest.raises(UserError, match="column 'question' not found; set --columns to one of"):
        examine(str(corpus / "b.txt"), str(corpus / "task.jsonl"), columns=["question"])
    report = examine(str(corpus / "b.txt"), str(corpus / "task.jsonl"), columns=["a"])
    assert report["tasks"][0]["overlaps"]["words"] == {"problems": 0, "too_short": 3, "found": []}


def test_names_of_files_are_printed_without_what_a_terminal_interprets(programs, tmp_path):
    task = lines(tmp_path / "a\x1b[2J\nb.jsonl", TASK)
    lines(tmp_path / "text.jsonl", [{"text": CROW}])
    words = ["launch.contamination", "--text=text.jsonl", f"--tasks={task}", "--out=\x1b.json"]
    status, out, err = programs.run(words, tmp_path)
    assert status == 0, err
    assert "\x1b" not in out
    assert r"a\x1b[2J\x0ab.jsonl  words" in out
    assert r"report: \x1b.json" in out


def test_the_program_prints_texts_of_problems_only_when_asked(programs, corpus):
    flags = ["--text=a.jsonl", "--text_column=body", "--tasks=task.jsonl,other.jsonl"]
    words = ["launch.contamination", *flags, "--out=new/found.json"]
    status, out, err = programs.run(words, corpus)
    assert status == 0, err
    assert "3 documents with" in out
    assert out.splitlines()[-1] == "report: new/found.json"
    report = json.loads((corpus / "new" / "found.json").read_text())
    assert table(report) in out
    everything = out + err + (corpus / "new" / "found.json").read_text()
    assert "crow" not in everything.lower()
    status, out, _ = programs.run([*words, "--show"], corpus)  # over its own report
    assert status == 0
    assert f"task.jsonl, row 2 (words): {CROW} | yes" in out.splitlines()
    assert json.loads((corpus / "new" / "found.json").read_text()) == report
