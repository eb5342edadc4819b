"""Records of .csv files, and which lines of task files in this format are problems."""

import csv

import pytest

from rlp.data import contamination
from rlp.data.csv_records import csv_records
from rlp.data.task_files import read_problems
from rlp.runtime.errors import UserError

CROW = "a crow saw three old ships sail past the red rocks at noon"
LONG = "x" * 2**18  # more than the default limit of Python's reader
RECORDS = [["question", "answer"], ['a "b"\r\nc, d', ""], [LONG, "\n"], ["e", "f"]]


def written(path, records):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(records)
    return str(path)


def test_cells_are_read_as_they_were_written_with_the_first_line_of_their_record(tmp_path):
    path = written(tmp_path / "a.csv", RECORDS)
    assert list(csv_records(path)) == [
        (f"{path}, line {line}", cells) for line, cells in zip((1, 2, 4, 6), RECORDS, strict=True)
    ]
    (tmp_path / "b.csv").write_text("\ufeffa,b\n\n\nc,d")
    assert [cells for _, cells in csv_records(str(tmp_path / "b.csv"))] == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('question,answer\n"1\n2",3\na,b,c\n', "line 4: has 3 cells, but the first record has 2"),
        ("question,answer\na\n", "line 2: has 1 cells, but the first record has 2"),
        ('question,answer\n1,2\n"a\nb', "line 3: not valid CSV: unexpected end of data"),
        ('question\n"a"b\n', "line 2: not valid CSV"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_by_its_line(tmp_path, content, problem):
    path = tmp_path / "a.csv"
    path.write_text(content)
    for read in (csv_records, read_problems):
        with pytest.raises(UserError, match=f"a.csv, {problem}"):
            list(read(str(path)))


ORIGINAL = [[CROW, "no", "yes", "1", "2", "B"], ["second", "a", "b", "c", "d", "A"]]


def test_the_first_line_of_a_file_without_names_is_a_problem(tmp_path, caplog):
    """The original files of MMLU begin with a problem."""
    caplog.set_level("INFO")
    path = written(tmp_path / "physics_test.csv", ORIGINAL)
    assert list(read_problems(path)) == ORIGINAL
    assert "physics_test.csv, line 1: none of the cells is answer or choices" in caplog.text
    assert "crow" not in caplog.text
    (tmp_path / "text.txt").write_text(f"so {CROW}")
    report = contamination.examine(str(tmp_path / "text.txt"), path)
    (found,) = report["tasks"][0]["overlaps"]["words"]["found"]
    assert found["problem"] == 0


def test_names_are_no_problem(tmp_path):
    names = ["Question", "A", "A", "C", "D", "Correct"]
    path = written(tmp_path / "a.csv", [names, *ORIGINAL])
    assert list(read_problems(path)) == ORIGINAL
    assert list(read_problems(path, ["C", "Question"])) == [["1", CROW], ["c", "second"]]
    path = written(tmp_path / "b.csv", [["frage", "antwort"], ["a", "b"]])
    assert list(read_problems(path, ["frage"])) == [["a"]]


def test_chosen_columns_must_be_in_the_first_line_which_is_not_printed(tmp_path):
    path = written(tmp_path / "a.csv", ORIGINAL)
    with pytest.raises(UserError, match="line 1: none of the 6 cells is 'question'") as caught:
        list(read_problems(path, ["question"]))
    assert "crow" not in str(caught.value)
