"""The program that measures checkpoints."""

import json

import pytest

from tests.support import folders, text_files


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--positions=2", "--stride=3"], "--positions and --stride exclude each other"),
        (["--temperature=nan"], "--temperature=nan; it must be a finite number"),
        (["--text=nothing.txt"], "--text: file or folder not found: nothing.txt"),
        (["--checkpoint=a=model,b=modle"], "modle"),
    ],
)
def test_bad_input_gets_one_line_before_anything_is_measured(programs, tmp_path, flags, message):
    pytest.importorskip("transformers")
    text_files.write(tmp_path / "some.jsonl", ["one document"])
    folders.write(tmp_path / "model")
    words = ["launch.measure", "--checkpoint=model", "--text=some.jsonl", "--out=out", *flags]
    ran = programs.run(words, tmp_path)
    assert ran.status == 2
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # compiles and runs a network
def test_the_same_command_writes_the_same_measures(programs, tmp_path):
    pytest.importorskip("transformers")
    text_files.write(tmp_path / "some.jsonl", ["It is 12 o'clock in Paris.", "a\n" * 40, "x"])
    folders.write(tmp_path / "model")
    what = ["--checkpoint=tiny=model", "--text=some.jsonl", "--documents=2"]
    how = ["--positions=2", "--thoughts=2", "--length=4", "--horizon=2", "--window=32"]
    words, outs = ["launch.measure", *what, *how], ("one", "two")
    for out in outs:
        ran = programs.run([*words, f"--out={out}"], tmp_path)
        assert ran.status == 0, ran.err
        assert ran.out.splitlines()[-1] == f"measures: {out}"
        assert "Gain of a thought and of what replaces it" in ran.out
    one, two = (
        json.loads((tmp_path / out / "measures.json").read_text()) for out in ("one", "two")
    )
    assert one == two
    (checkpoint,) = one["models"]
    assert checkpoint["name"] == "tiny"
    assert one["settings"]["positions"] == {"count": 2, "stride": 0, "marker": ""}
    assert "| tiny " in (tmp_path / "one" / "measures.md").read_text()
