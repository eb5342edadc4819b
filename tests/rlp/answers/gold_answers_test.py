"""Gold answers of files: which of them are usable, and that the results are cached."""

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
    """The path of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rlp" / "golds"


@pytest.fixture
def checks(monkeypatch):
    """The gold answers that are checked in processes, in order."""
    seen = []
    run = Grader.why_unusable

    def spy(self, golds):
        seen.extend(golds)
        return run(self, golds)

    monkeypatch.setattr(Grader, "why_unusable", spy)
    return seen


@pytest.fixture
def cached(monkeypatch):
    """Cache results of PICKY like those of a built-in verifier."""
    verifier = verifiers.find(PICKY.verifier)
    monkeypatch.setitem(verifiers.VERIFIERS, PICKY.verifier, verifier)


def reasons(grader, *answers):
    return GoldAnswers(grader).reasons([Gold(answer) for answer in answers])


def test_gold_answers_of_all_kinds_are_usable():
    """Plain or in a box."""
    kinds = [
        "42", "-5", "1,234", "$18", "50%", r"\frac{1}{2}", r"2\sqrt{3}", "x + 1", "(1, 2)", "[0,1)",
        r"\{1,2\}", r"\text{east}", "CAB", "5 cm", "11:00 AM", "1024_5", "1, 1, 2", "x=5",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"90^\circ", "east side", r"\angle ABC", "0",
    ]  # fmt: skip
    assert reasons(MATH, *kinds) == [None] * len(kinds)


def test_an_answer_that_the_verifier_rejects_is_named():
    (good, wrong, raises) = reasons(PICKY, "good", "wrong", "raise")
    assert good is None
    assert wrong == (
        "the gold answer 'wrong' is rejected by the verifier even as the whole response"
    )
    assert raises == "the gold answer 'raise' makes the verifier raise ValueError: it has two lines"


def test_a_check_that_takes_too_long_is_named_and_not_cached(cache, checks, cached):
    quick = dataclasses.replace(PICKY, time_limit=0.5)
    for _ in range(2):
        assert reasons(quick, "hang", "good") == [
            "the gold answer 'hang' was checked twice without a verdict: the check takes longer "
            "than data.problems.time_limit=0.5 seconds (four times that the second time), or its "
            "process dies, for example because data.problems.memory_limit=0 GiB is too little; "
            "raise these limits",
            None,
        ]
    assert checks == ["good", "hang", "hang"] * 2
    assert not cache.exists()


def test_results_are_cached_by_content(cache, checks, cached, monkeypatch):
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


def test_a_verifier_whose_code_changed_checks_again(cache, checks, cached, monkeypatch):
    reasons(PICKY, "good")
    monkeypatch.setattr(module, "_code", lambda: "another")
    reasons(PICKY, "good")
    assert checks == ["good"] * 2
    assert len(list(cache.iterdir())) == 2


def test_results_of_a_users_verifier_are_not_cached(cache, checks):
    """Its code may be in any number of files, each of which may have changed."""
    for _ in range(2):
        reasons(PICKY, "good", "wrong")
    assert checks == ["good", "wrong"] * 2
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[["x", "y"]]', "\x00"])
def test_a_file_of_the_cache_that_cannot_be_read_is_written_anew(cache, checks, cached, content):
    reasons(PICKY, "good", "wrong")
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(content)
    assert reasons(PICKY, "good", "wrong")[0] is None
    assert len(checks) == 4
    assert file.read_text() == whole
    assert os.listdir(cache) == [file.name]


def test_a_cache_that_cannot_be_written_is_logged(tmp_path, monkeypatch, checks, cached, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert reasons(PICKY, "good", "wrong")[0] is None
    assert len(checks) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "rlp/golds cannot be written (Not a directory)" in lines[0]


def test_a_cache_on_a_full_disk_is_left_without_partial_files(cache, monkeypatch, checks, cached):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.atomic_files, "write_whole", full)
    assert reasons(PICKY, "good")[0] is None
    assert list(cache.iterdir()) == []


def test_a_cache_is_in_the_home_of_a_user(tmp_path, monkeypatch, checks, cached):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # XDG says: ignore relative paths
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    reasons(PICKY, "good")
    assert (tmp_path / "home" / ".cache" / "rlp" / "golds").is_dir()
    assert not os.path.exists("relative")


def test_the_first_host_alone_checks(monkeypatch, checks):
    """The other hosts use its result."""
    monkeypatch.setattr(hosts, "agree", lambda decide: [[1, "is rejected by the first host"]])
    found = reasons(PICKY, "wrong", "good", "good")
    assert found == ["the gold answer 'wrong' is rejected by the first host", None, None]
    assert checks == []


def test_reasons_are_limited_if_all_answers_are_bad():
    many = [f"wrong{number}" for number in range(module.REASONS + 5)]
    found = reasons(PICKY, *many)
    assert None not in found
    assert sum(reason.endswith("cannot be used") for reason in found) == 5


def test_a_gold_answer_is_a_text_with_a_number_of_options():
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


def test_gold_answers_are_converted_for_the_verifier():
    make = lambda verifier: GoldAnswers(dataclasses.replace(MATH, verifier=verifier)).gold
    assert make("choice")("(b)", ["x", "y"]) == "B"
    assert make("choice")(1, ["x", "y"]).options == 2
    assert make("math")(7, None) == "7"
    assert make("exact")(" a ", ["x"]) == "a"
    assert make("tests.support.bad_verifiers:PICKY")(7.5, None) == "7.5"
    with pytest.raises(UserError, match="not one of the options A to B"):
        make("choice")("C", ["x", "y"])
