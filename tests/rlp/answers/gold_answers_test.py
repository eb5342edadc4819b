"""Right answers of files: which can be given, and that what was found of them is kept."""

import dataclasses
import json
import os

import pytest

from rlp.answers import gold_answers as module
from rlp.answers import grading, verifiers
from rlp.answers.gold_answers import GoldAnswers
from rlp.answers.grading import Grader
from rlp.answers.verifiers import Gold
from rlp.runtime import hosts
from rlp.runtime.errors import UserError

MATH = Grader("math", time_limit=60, workers=1, close="</think>")
PICKY = dataclasses.replace(MATH, verifier="tests.support.bad_verifiers:PICKY")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of a user who has none yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rlp" / "golds"


@pytest.fixture
def checks(monkeypatch):
    """What is checked in processes, in order."""
    seen = []
    run = Grader.can_be_given

    def watched(self, golds):
        seen.extend(golds)
        return run(self, golds)

    monkeypatch.setattr(Grader, "can_be_given", watched)
    return seen


@pytest.fixture
def kept(monkeypatch):
    """What is found with PICKY is kept, as with a verifier of this project."""
    found = verifiers.find(PICKY.verifier)
    monkeypatch.setitem(verifiers.VERIFIERS, PICKY.verifier, found)


def reasons(grader, *answers):
    return GoldAnswers(grader).reasons([Gold(answer) for answer in answers])


def test_answers_of_all_kinds_can_be_given():
    """As they stand, or in a box."""
    kinds = [
        "42", "-5", "1,234", "$18", "50%", r"\frac{1}{2}", r"2\sqrt{3}", "x + 1", "(1, 2)", "[0,1)",
        r"\{1,2\}", r"\text{east}", "CAB", "5 cm", "11:00 AM", "1024_5", "1, 1, 2", "x=5",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"90^\circ", "east side", r"\angle ABC", "0",
    ]  # fmt: skip
    assert reasons(MATH, *kinds) == [None] * len(kinds)


def test_an_answer_that_no_response_can_give_is_named():
    (good, wrong, raises) = reasons(PICKY, "good", "wrong", "raise")
    assert good is None
    assert wrong == "its answer 'wrong' would be judged wrong in a response that gives exactly it"
    assert raises == "its answer 'raise' makes the verifier raise ValueError: it has two lines"


def test_a_check_that_takes_too_long_is_named_and_not_kept(cache, checks, kept):
    quick = dataclasses.replace(PICKY, time_limit=0.5)
    for _ in range(2):
        assert reasons(quick, "hang", "good") == [
            "its answer 'hang' ends its check twice without a verdict: it takes longer than "
            "data.problems.time_limit=0.5 seconds, four times that the second time, or the process "
            "dies, as it does where data.problems.memory_limit=0 GiB are not enough",
            None,
        ]
    assert checks == ["good", "hang", "hang"] * 2
    assert not cache.exists()


def test_what_was_found_is_kept_by_content(cache, checks, kept, monkeypatch):
    found = reasons(PICKY, "good", "wrong", "good")
    assert checks == ["good", "wrong"]  # each once
    (file,) = cache.iterdir()
    assert reasons(PICKY, "wrong", "good", "good") == [found[1], None, None]
    assert len(checks) == 2
    reasons(PICKY, "wrong")  # other answers
    reasons(dataclasses.replace(PICKY, verifier="exact"), "good", "wrong")  # another verifier
    assert checks[2:] == ["wrong", "good", "wrong"]
    GoldAnswers(PICKY).reasons([Gold("good", 4), Gold("wrong")])  # among options
    assert checks[5:] == ["good", "wrong"]
    for name in ("math-verify", "sympy"):
        version = module.importlib.metadata.version
        other = lambda asked, name=name, version=version: "0" if asked == name else version(asked)
        monkeypatch.setattr(module.importlib.metadata, "version", other)
        reasons(PICKY, "good", "wrong")
        monkeypatch.setattr(module.importlib.metadata, "version", version)
    assert len(list(cache.iterdir())) == 6
    assert json.loads(file.read_text())[0][0] == 1


def test_a_verifier_whose_code_changed_checks_again(cache, checks, kept, monkeypatch):
    reasons(PICKY, "good")
    monkeypatch.setattr(module, "_code", lambda: "another")
    reasons(PICKY, "good")
    assert checks == ["good"] * 2
    assert len(list(cache.iterdir())) == 2


def test_nothing_is_kept_of_a_verifier_of_the_users(cache, checks):
    """Its code may be in any number of files, each of which may have changed."""
    for _ in range(2):
        reasons(PICKY, "good", "wrong")
    assert checks == ["good", "wrong"] * 2
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[["x", "y"]]', "\x00"])
def test_a_file_of_the_cache_that_cannot_be_read_is_written_anew(cache, checks, kept, content):
    reasons(PICKY, "good", "wrong")
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(content)
    assert reasons(PICKY, "good", "wrong")[0] is None
    assert len(checks) == 4
    assert file.read_text() == whole
    assert os.listdir(cache) == [file.name]


def test_a_cache_that_cannot_be_written_is_a_line(tmp_path, monkeypatch, checks, kept, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert reasons(PICKY, "good", "wrong")[0] is None
    assert len(checks) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "rlp/golds cannot be written (Not a directory)" in lines[0]


def test_a_cache_on_a_full_disk_is_a_line_and_keeps_no_part(cache, monkeypatch, checks, kept):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.atomic_files, "write_whole", full)
    assert reasons(PICKY, "good")[0] is None
    assert list(cache.iterdir()) == []


def test_a_cache_is_in_the_home_of_a_user(tmp_path, monkeypatch, checks, kept):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the rules of XDG say to ignore
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    reasons(PICKY, "good")
    assert (tmp_path / "home" / ".cache" / "rlp" / "golds").is_dir()
    assert not os.path.exists("relative")


def test_the_first_host_alone_checks(monkeypatch, checks):
    """The others take its word."""
    monkeypatch.setattr(hosts, "agree", lambda decide: [[1, "is what the first host says"]])
    found = reasons(PICKY, "wrong", "good", "good")
    assert found == ["its answer 'wrong' is what the first host says", None, None]
    assert checks == []


def test_reasons_stay_few_where_all_answers_are_bad():
    many = [f"wrong{number}" for number in range(module.REASONS + 5)]
    found = reasons(PICKY, *many)
    assert None not in found
    assert sum(reason.endswith("cannot be used") for reason in found) == 5


def test_a_right_answer_is_a_text_that_knows_its_options():
    gold = Gold("B", 4)
    assert gold == "B"
    import copy
    import pickle

    for same in (pickle.loads(pickle.dumps(gold)), copy.deepcopy(gold)):
        assert (same, same.options) == ("B", 4)
    assert Gold("7").options == 0
    assert verifiers.checked("choice", "The answer is E.", gold) == (None, False)
    assert verifiers.checked("choice", "The answer is E.", Gold("E")) == ("E", True)
    assert grading.Grader("choice", 60, 1, "</think>").grade(["b", "E"], gold)[0].correct


def test_golds_take_the_form_that_the_verifier_compares():
    make = lambda verifier: GoldAnswers(dataclasses.replace(MATH, verifier=verifier)).gold
    assert make("choice")("(b)", ["x", "y"]) == "B"
    assert make("choice")(1, ["x", "y"]).options == 2
    assert make("math")(7, None) == "7"
    assert make("exact")(" a ", ["x"]) == "a"
    assert make("tests.support.bad_verifiers:PICKY")(7.5, None) == "7.5"
    with pytest.raises(UserError, match="not one of the options A to B"):
        make("choice")("C", ["x", "y"])
