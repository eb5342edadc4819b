"""N-grams that texts share with problems, against sets of tuples."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.data.overlap import KINDS, SIZE, Overlaps, numbers_and_words, words
from rlp.data.task_files import exclusion, read_problems
from rlp.runtime.errors import UserError

SENTENCE = "a crow saw three old ships sail past the red rocks at noon"  # 13 words


def filler(count):
    return " ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(count))


def grams(text, kind, size):
    """The n-grams of a text that count, by the definition of its kind."""
    tokens = words(text) if kind == "words" else numbers_and_words(text)
    numbers = [token[-1].isdecimal() for token in tokens]
    if kind == "templates":
        tokens = ["#" if number else t for t, number in zip(tokens, numbers, strict=True)]
    found = set()
    for start in range(len(tokens) - size + 1):
        here = tuple(tokens[start : start + size])
        if kind != "words" and not any(numbers[start : start + size]):
            continue
        if kind == "templates" and sum(token != "#" for token in here) <= size // 2:
            continue
        found.add(here)
    return found


def by_sets(problems, text, size):
    """What `Overlaps.find` must return."""
    found = {}
    for kind in KINDS:
        here = grams(text, kind, size)
        hits = [
            number
            for number, texts in enumerate(problems)
            if any(here & grams(field, kind, size) for field in texts)
        ]
        found |= {kind: hits} if hits else {}
    return found


def as_lists(found):
    return {kind: numbers.tolist() for kind, numbers in found.items()}


TOKENS = ["a", "b", "Ab", "1", "12", "1,200", "2.5", "b.", "(a)", "-2", "é", "٣", *"+-=_²"]
TEXT = st.lists(st.sampled_from(TOKENS), max_size=30).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(
    problems=st.lists(st.lists(TEXT, max_size=2), max_size=4),
    text=TEXT,
    size=st.integers(1, 5),
    piece=st.integers(0, 40),
)
def test_the_problems_found_are_those_of_sets_of_n_grams_whatever_the_pieces(
    problems, text, size, piece
):
    found = Overlaps(problems, size=size, piece=piece).find(text)
    assert as_lists(found) == by_sets(problems, text, size)


@pytest.mark.parametrize("before", [0, 1, 500])
@pytest.mark.parametrize("piece", [1, 40, 1 << 20])
def test_13_words_in_a_row_are_found_and_12_are_not(before, piece):
    overlaps = Overlaps([["nothing of it"], [f"once {SENTENCE} again"]], piece=piece)
    lines = lambda part: f"{filler(before)}\n{part.upper()!r}, {filler(40)}"
    first, *rest = SENTENCE.split()
    assert as_lists(overlaps.find(lines(SENTENCE))) == {"words": [1]}
    for part in ([first, *rest[:-1]], rest, [*rest[:6], "new", *rest[6:]], [*rest, first]):
        assert overlaps.find(lines(" ".join(part))) == {}


def test_an_n_gram_does_not_extend_across_fields_or_problems():
    one, other = SENTENCE[:30], SENTENCE[30:]
    assert Overlaps([[one, other]]).find(SENTENCE) == {}
    assert Overlaps([[one], [other]]).find(SENTENCE) == {}


PROBLEM = "Ann has {} pens and buys {} more pens in the little shop beside the old school house ."
LONG = (
    "Every day of the week the baker at the corner of the square sells {} loaves for {} coins each."
)


@pytest.mark.parametrize("problem", [PROBLEM, LONG])
def test_problems_that_differ_in_all_numbers_share_a_template_and_no_numbers(problem):
    overlaps = Overlaps([[problem.format(3, "1,200")]])
    for numbers in ((4, "1,300"), (31, 200), (3.5, 12), ("1,2003", 3)):
        found = as_lists(overlaps.find(problem.format(*numbers)))
        assert "numbers" not in found
        assert found["templates"] == [0]
    for same in ((3, "1,200"), (3, 1200)):
        assert as_lists(overlaps.find(problem.format(*same)))["numbers"] == [0]
    # Thirteen words between two numbers are the same words, whatever the numbers.
    assert ("words" in overlaps.find(problem.format(4, 5))) == (problem is LONG)


def test_signs_are_part_of_a_sum_and_lists_of_numbers_are_no_template():
    sum_of = lambda *terms: "find the value of this sum : " + " ".join(terms)
    terms = ["1", "+ 2", "- 3", "+ 4", "- 5", "+ 6", "- 7"]
    overlaps = Overlaps([[sum_of(*terms)]])
    found = lambda *change: as_lists(overlaps.find(sum_of(*terms).replace(*change)))
    assert found("+ ", "+") == {"words": [0], "numbers": [0]}
    assert found("- 3", "* 3") == {"words": [0]}
    numbers = [str(n) for n in range(20)]
    assert Overlaps([[" ".join(numbers)]]).find(" ".join(numbers[::-1])) == {}


def test_the_same_small_calculation_is_no_copy():
    overlaps = Overlaps([["He pays 4*5=$<<4*5=20>>20 for them."]])
    assert overlaps.find("She has 4*5=<<4*5=20>>20 apples and 4*5=<<4*5=20>>20 pears.") == {}


def test_problems_that_are_too_short_are_known():
    overlaps = Overlaps([[SENTENCE], ["six of one", "and 7"], [], [PROBLEM.format(1, 2)]])
    assert {kind: overlaps.comparable(kind).tolist() for kind in KINDS} == {
        "words": [0, 3],
        "numbers": [3],
        "templates": [3],
    }


@pytest.mark.parametrize("piece", ["=", "- ", "_", "1,000,", "a", "é\n", "1"])
def test_time_is_linear_in_the_text(piece):
    text = piece * (400_000 // len(piece))
    assert Overlaps([[SENTENCE]]).find(text) == {}  # a quadratic pattern would take minutes


def test_memory_does_not_grow_with_the_text():
    overlaps = Overlaps([[SENTENCE]])
    overlaps.find(f"{filler(600)} " * 400)
    assert all(len(v) == len(SENTENCE.split()) for v in overlaps._vocabularies.values())


# ---- task files ----

ROWS = [
    {"question": "What is 1 + 1?", "options": ["two\nlines", "é"], "answer": 2, "note": None},
    {"question": f'Who {SENTENCE}, said "she"?', "options": ["a"], "answer": 3, "note": "n"},
]
TEXTS = [["What is 1 + 1?", "two\nlines", "é"], [f'Who {SENTENCE}, said "she"?', "a", "n"]]


def task_file(path, rows=ROWS):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        quoted = lambda value: '"' + value.replace('"', '""') + '"'
        lines = [["question", "option", "note"]]
        lines += [[r["question"], "\n".join(r["options"]), r["note"] or ""] for r in rows]
        path.write_text("".join(",".join(map(quoted, line)) + "\r\n" for line in lines))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_every_text_of_a_row_is_read_in_every_format(tmp_path, name):
    path = task_file(tmp_path / name)
    found = [[text for text in texts if text] for texts in read_problems(path)]
    expected = TEXTS
    if name == "a.csv":  # a list is one cell
        expected = [[question, "\n".join(options), *note] for (question, *options), note in (
            (TEXTS[0], []), (TEXTS[1][:2], ["n"]),
        )]  # fmt: skip
    assert found == expected
    assert list(read_problems(path, ["question"])) == [texts[:1] for texts in TEXTS]


def test_what_is_left_out_can_be_found(tmp_path):
    assert exclusion("") is None
    path = task_file(tmp_path / "a.jsonl")
    assert as_lists(exclusion(path).find(f"{filler(3)} {SENTENCE}")) == {"words": [1]}
    # Templates are not left out: a corpus of sums would have nothing left.
    path = task_file(tmp_path / "b.jsonl", [{"q": PROBLEM.format(3, 4)}])
    assert exclusion(path).find(PROBLEM.format(5, 6)) == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"q": "too short"}\n', "has no text of 13 words"),
        ("a.jsonl", "", "a.jsonl: contains no problems"),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1: must be a JSON object but is list"),
        ("a.csv", 'a,b\n"x', "a.csv, line 2: not valid CSV: unexpected end of data"),
        ("a.csv", b"a\n\xff\n", "a.csv, line 2: not valid UTF-8"),
        ("a.parquet", "no", "a.parquet: not a readable parquet file"),
        ("a.txt", SENTENCE, r"a.txt has an unsupported ending; supported: .jsonl .* .parquet .csv"),
    ],
)
def test_task_files_that_cannot_be_used_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        exclusion(str(tmp_path / name))


def test_a_column_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="column 'problem' not found; set --columns to one of: que"):
        list(read_problems(task_file(tmp_path / "a.jsonl"), ["problem"]))


def test_a_random_text_has_no_hits_by_hash_alone():
    rng = np.random.default_rng(0)
    draw = lambda: " ".join(map(str, rng.integers(0, 4, 3000)))
    problems, text = [[draw()]], draw()
    assert as_lists(Overlaps(problems, size=8).find(text)) == by_sets(problems, text, 8)
    assert SIZE == 13
