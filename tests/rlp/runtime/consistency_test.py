"""Differences between processes are reported with the field, the values and the processes."""

from rlp.runtime import consistency
from rlp.runtime.config_json import fields
from rlp.runtime.consistency import Member
from tests.support import runs

A, B, C = Member(0, "a"), Member(1, "b"), Member(2, "c")


def test_equal_processes_do_not_differ():
    assert consistency.differences({A: {"x": 1, "y": [2]}, B: {"y": [2], "x": 1}}) == []


def test_a_difference_names_the_field_the_values_and_the_processes():
    facts = {A: {"config.seed": 0, "x": 1}, B: {"config.seed": 5, "x": 1}, C: {"config.seed": 0}}
    assert consistency.differences(facts) == [
        "config.seed is 0 on processes 0, 2 and 5 on process 1 on b",
        "x is 1 on processes 0, 1 and missing on process 2 on c",
    ]


def test_numbers_of_another_type_and_texts_differ():
    for one, other in ((1, 1.0), (True, 1), ("1", 1), (0.1, 0.1 + 1e-17 + 2e-17)):
        different = repr(one) != repr(other)
        assert bool(consistency.differences({A: {"x": one}, B: {"x": other}})) == different


def test_a_refusal_is_one_line_with_the_first_differences():
    facts = {member: {f"x{i}": member.process for i in range(9)} for member in (A, B)}
    line = consistency.refusal(consistency.differences(facts))
    assert "x0 is 0 on process 0 on a and 1 on process 1 on b" in line
    assert "x8" not in line
    assert "and 6 more" in line
    assert "\n" not in line


def test_of_code_that_differs_only_the_file_and_the_minority_are_named():
    name = consistency.CODE + "rlp/run/loop.py"
    lines = consistency.differences({A: {name: "77"}, B: {name: "88"}, C: {name: "88"}})
    assert lines == [f"{name} differs on process 0 on a"]


def test_the_whole_code_and_every_field_are_compared():
    code = consistency.program_facts()
    for file in ("rlp/runtime/hosts.py", "rlp/data/fingerprint.py", "models/kernels/visits.py"):
        assert code[consistency.CODE + file]
    named = {"objective": "tests.support.easy_verifiers:X", "data.kind": "tests.support.paths:X"}
    config = runs.config(named)
    facts = consistency.config_facts(dict(fields(config)))
    assert facts["config.optimizer.learning_rate"] == config.optimizer.learning_rate
    for module in ("tests.support.easy_verifiers", "tests.support.paths"):
        assert facts[consistency.CODE + module]


def test_the_source_of_a_module_that_the_config_names_is_compared(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    facts = []
    for text in ("X = 1\n", "X = 2\n"):
        (tmp_path / "outside_of_it.py").write_text(text)
        facts.append(consistency.config_facts({"objective": "outside_of_it:X"}))
    assert consistency.differences(dict(zip((A, B), facts, strict=True))) == [
        "the code of outside_of_it differs on process 1 on b"
    ]


def test_files_differ_by_their_size_their_beginning_and_their_end(tmp_path):
    path = tmp_path / "model.safetensors"
    contents = [b"x" * 10, b"x" * 11, b"y" + b"x" * 9, b"x" * 9 + b"y"]
    facts = []
    for content in contents:
        path.write_bytes(content)
        facts.append(consistency.file_facts(tmp_path)[f"the file {path}"])
    assert len(set(facts)) == len(contents)
    assert consistency.file_facts(tmp_path / "absent") == {}


def test_other_data_name_the_field_and_the_process():
    part = lambda digest, count: {"digest": digest, "documents": count}
    same = {"data.train": part("1", 12)}
    assert consistency.data_difference({A: same, B: dict(same)}) == ""
    line = consistency.data_difference({A: same, B: same, C: {"data.train": part("2", 13)}})
    assert line.startswith("process 2 on c has different data than process 0 on a (data.train: 12 ")
    assert "13 documents" in line
