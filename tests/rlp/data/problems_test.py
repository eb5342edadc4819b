"""Problems: prompts as a sampler sees them, their gold answers, and the rows they come from."""

import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.answers.gold_answers import GoldAnswers
from rlp.answers.grading import Grader
from rlp.data import compass
from rlp.data.batch import Answered
from rlp.data.problem_format import ProblemFormat
from rlp.data.problems import problem_streams
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from rlp.tokenizers.load import load_tokenizer

BYTES = load_tokenizer("bytes")
(BOS,), PAD = BYTES.bos, BYTES.pad
PLAIN = ProblemFormat(prompt="problem", answer="answer")
T = 24


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count, first=0):
    """Return problems of different lengths, a few longer than a row, with numbers as answers."""
    return [
        {"problem": f"é{i}" + "x" * (i * 7 % 27), "answer": str(i)}
        for i in range(first, first + count)
    ]


def streams(train="", verifier="exact", **options):
    gold_answers = GoldAnswers(Grader(verifier, 60, 1, "</think>"))
    given = {"form": PLAIN, "ask": lambda text: text, "tokenizer": BYTES, "sequence_length": T}
    options["gold_answers"] = options.get("gold_answers", gold_answers)
    return problem_streams(train=train, **given | {"head": (BOS,), "holdout_every": 4} | options)


def records(stream, first, size, pad=PAD):
    """Return prompt and answer of some records, after checking the invariants of their rows."""
    batch, found = stream.batch(first, size), []
    assert batch.loss_mask is None
    assert batch.index.tolist() == list(range(first, first + size))
    for name in ("tokens", "segment", "position", "index", "forks"):
        assert getattr(batch, name).dtype == np.int32, name
    assert batch.tokens.shape == batch.segment.shape == batch.position.shape
    for row in range(size):
        (end,) = batch.forks[row].tolist()
        assert 0 < end < batch.tokens.shape[1]  # the response has room for its first token
        assert batch.segment[row].tolist() == [1] * end + [0] * (batch.tokens.shape[1] - end)
        assert batch.position[row, :end].tolist() == list(range(end))
        assert not batch.position[row, end:].any()
        assert (batch.tokens[row, end:] == pad).all()
        found.append((tuple(batch.tokens[row, :end].tolist()), stream.answer(first + row)))
    return found


def expected(rows, size=T):
    """Return the expected records of rows of a file, and how many of them do not fit."""
    every = [((BOS, *row["problem"].encode()), row["answer"]) for row in rows]
    fits = [item for item in every if len(item[0]) < size]
    return fits, len(every) - len(fits)


# ---- rows ----


def test_every_problem_that_fits_is_a_row_and_every_nth_of_all_is_held_out(tmp_path):
    """The split does not depend on the row length: no problem moves from one side to the other."""
    rows = numbered(60)
    path = write(tmp_path / "a.jsonl", rows)
    sides = [row for i, row in enumerate(rows, 1) if i % 4], rows[3::4]
    for size in (T, 12, 99):
        train, held = streams(path, sequence_length=size)
        assert list(held) == [""]
        left_out = 0
        for stream, here in zip((train, held[""]), sides, strict=True):
            fits, too_long = expected(here, size)
            assert sorted(records(stream, 0, len(stream))) == sorted(fits)
            assert stream.records_per_epoch == len(stream) == len(fits)
            left_out += too_long
        assert train.skipped + held[""].skipped == left_out
        assert (left_out > 0) == (size < 99)


@given(st.integers(0, 9), st.integers(0, 200), st.integers(0, 8))
@settings(max_examples=10, deadline=None)
def test_a_record_is_a_function_of_seed_and_number(tmp_path_factory, seed, first, size):
    path = write(tmp_path_factory.mktemp("any") / "a.jsonl", numbered(30))
    train, held = streams(path, seed=seed)
    again, held_again = streams(path, seed=seed)
    whole = records(train, first, size)
    assert whole == [records(again, first + k, 1)[0] for k in range(size)]
    epoch = len(train)
    start = first // epoch * epoch
    assert sorted(records(train, start, epoch)) == sorted(records(train, 0, epoch))
    assert records(held[""], 0, len(held[""])) == records(held_again[""], 0, len(held[""]))


def test_every_seed_and_epoch_has_another_order_but_held_out_rows_have_one(tmp_path):
    path = write(tmp_path / "a.jsonl", numbered(60))
    (one, held), (other, held_other) = (streams(path, seed=seed) for seed in (0, 1))
    size = len(one)
    orders = [records(one, 0, size), records(one, size, size), records(other, 0, size)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    end = len(held[""])
    assert records(held[""], 0, end) == records(held_other[""], 0, end)
    for first, count in ((-1, 1), (end, 1), (end - 1, 2)):
        with pytest.raises(IndexError, match=f"among {end} problems"):
            held[""].batch(first, count)


def test_the_first_held_out_problems_have_their_answers(tmp_path):
    _, held = streams(write(tmp_path / "a.jsonl", numbered(60)))
    for count in (1, 3, 99):
        found = held[""].beginning(count)
        size = min(count, len(held[""]))
        pairs = records(held[""], 0, size)
        assert found.answers == tuple(answer for _, answer in pairs)
        np.testing.assert_array_equal(found.prompts.tokens, held[""].batch(0, size).tokens)


KINDS = ("evaluation", "evaluation", "train")


def test_held_out_files_are_separate_streams_with_their_names(tmp_path, caplog):
    (tmp_path / "more").mkdir()
    rows = numbered(6), numbered(5, 10), numbered(7, 20)
    names = ("train.jsonl", "gsm8k.test.jsonl", "more/math.parquet")
    paths = [write(tmp_path / name, some) for name, some in zip(names, rows, strict=True)]
    (tmp_path / "more" / "notes.csv").touch()
    caplog.set_level("INFO", "rlp")
    train, held = streams(paths[0], evaluation=f"{paths[1]},{tmp_path / 'more'}")
    assert list(held) == ["gsm8k.test", "math"]
    lines = [message for message in caplog.messages if ": read " in message]
    assert [line.partition(":")[0] for line in lines] == [f"data.problems.{x}" for x in KINDS]
    assert "skipped: 1 .csv" in lines[0]
    assert "; 6 problems with " in lines[2]
    assert lines[2].endswith(
        "; 5 training problems, left out: 1 (data.sequence_length tokens or more)"
    )
    fits = [expected(some) for some in rows]
    for stream, (items, too_long) in zip((train, *held.values()), fits, strict=True):
        assert sorted(records(stream, 0, len(stream))) == sorted(items)
        assert stream.skipped == too_long
    none, alone = streams("", evaluation=paths[2])
    assert none is None
    assert records(alone["math"], 0, 3) == records(held["math"], 0, 3)
    with pytest.raises(UserError, match=r"train.jsonl is in both data.problems.train and data.pr"):
        streams(paths[0], evaluation=",".join(paths))
    (tmp_path / "other").mkdir()
    twin = write(tmp_path / "other" / "math.jsonl", rows[0])
    _, both = streams("", evaluation=",".join([paths[2], twin, paths[1]]))
    assert list(both) == ["more-math", "other-math", "gsm8k.test"]
    (tmp_path / "here" / "other").mkdir(parents=True)
    third = write(tmp_path / "here" / "other" / "math.jsonl", rows[0])
    with pytest.raises(
        UserError, match=r"problems.evaluation contains two files named other-math; rename"
    ):
        streams("", evaluation=f"{twin},{third}")


def test_prompts_have_the_ids_that_the_tokenizer_gives(tmp_path):
    """The whole text of `ask` is encoded, without the last token if the response begins with it."""

    class Doubles(ByteTokenizer):
        """Reads "ab" as one token."""

        def encode_all(self, texts):
            return [np.array([*text.replace("ab", "\1").encode()], np.int32) for text in texts]

    path = write(tmp_path / "a.jsonl", [{"problem": "bab", "answer": "1"}] * 2)
    options = {"tokenizer": Doubles(), "holdout_every": 2, "ask": lambda text: f"a{text}a:"}
    train, _ = streams(path, **options)
    assert records(train, 0, 1) == [((BOS, *b"\1\1a:"), "1")]
    train, _ = streams(path, **options, opening=ord(":"))
    assert records(train, 0, 1) == [((BOS, *b"\1\1a"), "1")]
    with pytest.raises(UserError, match=r"train: a prompt ends with token 58 instead of 126"):
        streams(path, **options, opening=126)
    train, _ = streams(path, **options, head=())
    assert records(train, 0, 1) == [((*b"\1\1a:",), "1")]


# ---- forms ----


def usable(path, rows, verifier="exact", **form):
    """Return prompt and answer of every usable row, sorted."""
    form = ProblemFormat(**{"prompt": "problem", "answer": "answer"} | form)
    evaluation = write(path, rows)
    _, held = streams("", verifier, evaluation=evaluation, form=form, sequence_length=999)
    (stream,) = held.values()
    pairs = records(stream, 0, len(stream))
    assert isinstance(stream, Answered)
    texts = {bytes(ids[1:]).decode(): answer for ids, answer in pairs}
    return sorted(texts.items())


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_answer_is_a_text_or_a_number(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    rows = [{"problem": "q", "answer": " 7 \n"}]
    assert usable(path, rows) == [("q", "7")]
    for number, said in ((72, "72"), (-0.5, "-0.5"), (0, "0")):
        assert usable(path, [{"problem": "q", "answer": number}]) == [("q", said)]


def test_an_answer_follows_the_last_marker(tmp_path):
    rows = [
        {"problem": "a", "answer": "48 / 2 = <<48/2=24>>24\n48 + 24 = 72\n#### 72"},
        {"problem": "b", "answer": "#### 1\n#### 1,000 "},
    ]
    assert usable(tmp_path / "a.jsonl", rows, marker="####") == [("a", "72"), ("b", "1,000")]


def test_options_are_lettered_lines_and_the_instruction_has_a_place_for_it_all(tmp_path):
    rows = [{"q": "Which {problem}?", "choices": ["x", "é y"], "label": "B"}]
    form = {"prompt": "q", "answer": "label", "options": "choices"}
    assert usable(tmp_path / "a.parquet", rows, **form) == [("Which {problem}?\nA. x\nB. é y", "B")]
    form["instruction"] = "Choose.\n{problem}\nAnswer:"
    assert usable(tmp_path / "a.jsonl", rows, **form) == [
        ("Choose.\nWhich {problem}?\nA. x\nB. é y\nAnswer:", "B")
    ]


GOOD = {"problem": "q", "answer": "1", "choices": ["x", "y"]}
NO_LIST = "must be a list of 1 to 26 options"
REFUSED = {
    "no such column": ({}, {"problem": "q"}, "column 'answer' not found; set data.problems.ans"),
    "no such prompt": ({"prompt": "q"}, GOOD, "column 'q' not found; set data.problems.prompt"),
    "no such options": ({"options": "o"}, GOOD, "column 'o' not found; set data.problems.opt"),
    "no text": ({}, GOOD | {"problem": 3}, "column 'problem' must be a text but is int"),
    "no problem": ({}, GOOD | {"problem": " \n"}, "column 'problem' is empty, but must contain"),
    "no answer": ({}, GOOD | {"answer": ""}, "column 'answer' contains no answer"),
    "an answer of another kind": ({}, GOOD | {"answer": True}, "'answer' must be a text but is bo"),
    "nothing": ({}, GOOD | {"answer": None}, "column 'answer' must be a text but is null"),
    "no marker": ({"marker": "####"}, GOOD, "column 'answer' does not contain data.problems."),
    "nothing behind the marker": (
        {"marker": "####"},
        GOOD | {"answer": "5 ####"},
        "column 'answer' contains no answer",
    ),
    "no choices": ({"options": "choices"}, GOOD | {"choices": "xy"}, NO_LIST),
    "an empty list": ({"options": "choices"}, GOOD | {"choices": []}, NO_LIST),
    "too many": ({"options": "choices"}, GOOD | {"choices": ["x"] * 27}, NO_LIST),
    "a choice of another kind": (
        {"options": "choices"},
        GOOD | {"choices": [1]},
        "column 'choices' must be a text but is int",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_is_not_a_problem_is_skipped_and_named(case, tmp_path, caplog):
    form, row, message = REFUSED[case]
    good = GOOD | {"answer": "#### 1", "q": "q", "o": ["x"]}
    path = tmp_path / "a.jsonl"
    if "not found" in message:
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            usable(path, [good, row], **form)
        assert "\n" not in str(caught.value)
        return
    rows = [good | {"problem": f"q{i}", "q": f"q{i}"} for i in range(5)]
    assert len(usable(path, [rows[0], row, *rows[1:]], **form)) == 5
    (logged,) = [record.getMessage() for record in caplog.records if "skipped" in record.message]
    assert "data.problems.evaluation: 1 of 6 rows cannot be used and are skipped: " in logged
    assert f"{path}, line 2: " in logged
    assert message in logged
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        usable(path, [rows[0], row, row], **form)
    assert "2 of 3 rows cannot be used, more than data.max_unusable_share=0.2" in str(caught.value)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        usable(path, [row], **form)
    assert "none of the 1 rows of " in str(caught.value)
    assert "\n" not in str(caught.value)


OPTIONS = ["Oslo", "Paris", "Rome", "Bern"]
LETTERS = {
    "B": (
        "B",
        "b",
        "(B)",
        "(b)",
        "B.",
        " b) ",
        "**B**",
        r"\boxed{B}",
        1,
        1.0,
        "1",
        "Paris",
        "paris",
    ),
    "A": ("A", 0, "0", "Oslo"),
    "D": ("D", "(d)", 3, "Bern"),
}
NO_LETTERS = {
    "E": "'E' is not one of the options A to D",
    "4": "4 is not the number of an option from 0 to 3",
    "-1": "-1 is not the number of an option from 0 to 3",
    "Madrid": "'Madrid' is not a letter from A to D, the number of an option (from 0) or the text",
    "A or B": "'A or B' is not a letter from A to D",
    "1.5": "'1.5' is not a letter from A to D",
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_answer_that_chooses_becomes_the_letter_of_its_option(tmp_path, ending):
    form = {"options": "choices"}
    for letter, answers in LETTERS.items():
        for kind in (str, int, float):
            some = [answer for answer in answers if isinstance(answer, kind)]
            rows = [
                {"problem": f"q{n}", "answer": answer, "choices": OPTIONS}
                for n, answer in enumerate(some)
            ]
            if rows:
                found = usable(tmp_path / f"a.{ending}", rows, "choice", **form)
                assert [answer for _, answer in found] == [letter] * len(rows)
                assert all(answer.options == 4 for _, answer in found)


@pytest.mark.parametrize("answer", NO_LETTERS)
def test_an_answer_that_is_no_option_is_named(tmp_path, answer):
    rows = [{"problem": "q", "answer": answer, "choices": OPTIONS}]
    with pytest.raises(UserError, match=re.escape(NO_LETTERS[answer])) as caught:
        usable(tmp_path / "a.jsonl", rows, "choice", options="choices")
    assert f"none of the 1 rows of {tmp_path / 'a.jsonl'} can be used" in str(caught.value)
    assert "line 1: the gold answer" in str(caught.value)


def test_a_number_may_mean_an_option_in_two_ways(tmp_path):
    numbers = ["2", "3", "4"]
    rows = [{"problem": "q", "answer": "2", "choices": numbers}]
    with pytest.raises(UserError, match="'2' may be the number of an option"):
        usable(tmp_path / "a.jsonl", rows, "choice", options="choices")
    for answer, letter in ((2, "C"), ("4", "C"), ("1", "B"), (0, "A")):
        rows = [{"problem": "q", "answer": answer, "choices": numbers}]
        found = usable(tmp_path / "a.jsonl", rows, "choice", options="choices")
        assert [answer for _, answer in found] == [letter]


def test_letters_without_options(tmp_path):
    for answer in ("j", "(J)"):
        found = usable(tmp_path / "a.jsonl", [{"problem": "q", "answer": answer}], "choice")
        assert found == [("q", "J")]
        assert found[0][1].options == 0
    for answer, message in (
        (2, "set data.problems.options_column to"),
        ("K", "one of the options"),
    ):
        with pytest.raises(UserError, match=message):
            usable(tmp_path / "a.jsonl", [{"problem": "q", "answer": answer}], "choice")


def test_the_answer_of_a_solution_is_what_its_last_box_holds(tmp_path):
    rows = [{"problem": "q", "answer": r"So \boxed{1} or rather $\boxed{\frac{1}{2}}$, as shown."}]
    assert usable(tmp_path / "a.jsonl", rows, "math") == [("q", r"\frac{1}{2}")]


def test_solutions_that_no_response_would_repeat_are_refused(tmp_path):
    for answer, message in (
        (
            "48 / 2 = 24 clips\n#### 72",
            "the gold answer contains '####'; set data.problems.answer_marker=",
        ),
        (
            "We add one clip after the other. " * 9,
            "the gold answer is a text of 63 words, which no resp",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            usable(tmp_path / "a.jsonl", [{"problem": "q", "answer": answer}] * 3, "math")
        assert "\n" not in str(caught.value)


def test_a_number_that_is_missing_is_no_answer(tmp_path):
    table = pyarrow.table({"problem": ["a", "b", "c", "d", "e"], "answer": [1.0, 2, None, 4, 5]})
    frame = table.set_column(1, "answer", pyarrow.array([1.0, 2.0, float("nan"), 4.0, 5.0]))
    for number, some in enumerate((table, frame)):
        path = tmp_path / f"{number}.parquet"
        pyarrow.parquet.write_table(some, path)
        _, held = streams("", evaluation=str(path), sequence_length=99)
        assert len(held[str(number)]) == 4


def test_a_file_none_of_whose_rows_can_be_used_is_refused_among_others(tmp_path):
    """Even if they are a small share of the rows of all files."""
    good = write(tmp_path / "good.jsonl", numbered(40))
    bad = write(tmp_path / "bad.jsonl", [{"problem": "q", "answer": ""}])
    with pytest.raises(UserError, match=r"data.problems.train: none of the 1 rows of .*bad.jsonl"):
        streams(f"{good},{bad}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout_every": 9}, r"data.problems.train has too few problems \(8\) to hold out one"),
        ({"holdout_every": 1}, "data.holdout_every=1 leaves nothing to train on"),
        ({"sequence_length": 3}, "fits in data.sequence_length=3 (the shortest has 3 tokens, and"),
        ({"evaluation": "no/such"}, "data.problems.evaluation: file or folder not found: no/such"),
    ],
)
def test_unusable_settings_say_what_to_change(tmp_path, options, message):
    path = write(tmp_path / "a.jsonl", [{"problem": "qq", "answer": "a"}] * 8)
    assert len(streams(path, sequence_length=4)[0]) == 6
    with pytest.raises(UserError, match=message if "\\" in message else re.escape(message)):
        streams(path, **options)


def test_files_without_problems_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"a.txt: a text file has no columns 'problem' and 'answ"):
        streams(str(tmp_path / "a.txt"))
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"data.problems.evaluation: no problems in .*a.jsonl"):
        streams("", evaluation=str(tmp_path / "a.jsonl"))


# ---- the compass ----


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_walk_is_trained_on_from_its_fork_on(share):
    walks = compass.CompassStream(3, 40, thought_share=share)
    rows, pairs = walks.batch(5, 20), compass.CompassPairs(walks).batch(5, 20)
    for name in ("tokens", "segment", "position", "index", "forks"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(rows, name))
    words = compass.TOKENIZER
    trained_on = [
        words.decode(row[mask].tolist())
        for row, mask in zip(pairs.tokens, pairs.loss_mask, strict=True)
    ]
    form = r"(<think> .* </think> )?(north|east|south|west) \. <eos>"
    assert all(re.fullmatch(form, text) for text in trained_on)
    assert any(text.startswith("<think>") for text in trained_on) == (share > 0)


def test_a_walk_as_a_problem_is_its_document_up_to_the_answer():
    walks = compass.CompassStream(3, 30)
    problems, words = compass.CompassProblems(walks), compass.TOKENIZER
    assert isinstance(problems, Answered)
    documents = walks.batch(7, 20)
    found = records(problems, 7, 20, words.pad)
    for row, (prompt, answer) in enumerate(found):
        whole = documents.tokens[row][documents.segment[row] > 0].tolist()
        assert [*prompt, *words.encode(answer), words.eos] == whole
        assert re.fullmatch(r"(north|east|south|west) \.", answer)
    first = problems.beginning(9)
    np.testing.assert_array_equal(first.prompts.tokens, problems.batch(0, 9).tokens)
    assert first.answers == tuple(answer for _, answer in records(problems, 0, 9, words.pad))
