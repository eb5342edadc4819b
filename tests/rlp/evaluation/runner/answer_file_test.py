import pytest

from rlp.evaluation.runner.answer_file import AnswerFile
from rlp.runtime.errors import UserError

SETTINGS = {"task": "sums", "seed": 1}


PROMPTS = {"a": "1", "b": "2", "ß\udc80": "3"}


def opened(tmp_path, settings=SETTINGS, prompts=PROMPTS):
    return AnswerFile(tmp_path / "model" / "sums.jsonl", settings, prompts)


def test_records_are_there_when_the_file_is_opened_again(tmp_path):
    file = opened(tmp_path)
    file.add("a", 0, {"text": "1\n2", "score": float("nan")})
    file.add("ß\udc80", 3, {"text": "\x85 \u2028"})
    again = opened(tmp_path)
    assert again.records == file.records
    expected = {"problem": "a", "run": 0, "prompt": "1", "text": "1\n2", "score": None}
    assert again.records["a", 0] == expected
    assert again.records["ß\udc80", 3]["text"] == "\x85 \u2028"


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_response_that_was_only_partly_written_is_one_that_is_missing(tmp_path, cut):
    file = opened(tmp_path)
    file.add("a", 0, {"text": "x"})
    file.add("b", 0, {"text": "y" * 40})
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-cut])
    again = opened(tmp_path)
    assert list(again.records) == [("a", 0)]
    again.add("b", 0, {"text": "y" * 40})
    assert again.path.read_bytes() == content


def test_other_settings_are_refused_and_named(tmp_path):
    opened(tmp_path).add("a", 0, {})
    with pytest.raises(UserError, match=r"seed was 1 and is now 2\); use another --out"):
        opened(tmp_path, {**SETTINGS, "seed": 2})
    with pytest.raises(UserError, match="top_p was None and is now 0.9"):
        opened(tmp_path, {**SETTINGS, "top_p": 0.9})
    assert list(opened(tmp_path).records) == [("a", 0)]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_damaged_line_is_named(tmp_path, line):
    file = opened(tmp_path)
    file.add("a", 0, {})
    file.add("b", 0, {})
    lines = file.path.read_bytes().split(b"\n")
    lines[line] = lines[line][3:]
    file.path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=f"line {line + 1}: damaged"):
        opened(tmp_path)


def test_responses_to_other_problems_stay_and_those_to_other_prompts_are_refused(tmp_path):
    file = opened(tmp_path)
    file.add("a", 0, {})
    file.add("b", 0, {})
    assert list(opened(tmp_path, prompts={"b": "2"}).records) == [("b", 0)]
    assert list(opened(tmp_path).records) == [("a", 0), ("b", 0)]
    with pytest.raises(UserError, match="the response to problem b is to another prompt"):
        opened(tmp_path, prompts={"b": "4"})
