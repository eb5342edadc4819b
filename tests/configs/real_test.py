"""The texts of the experiment on a real model, its config, and its table."""

import json
import re
from itertools import islice

import numpy as np
import pytest

from configs.real import a, b, grade_school, recipe, sums, texts
from configs.real.problems import Problem
from rlp.run import experiment, real_model
from rlp.run.checks import check
from rlp.runtime.config_json import fields

SIZES = texts.Sizes(warm=60, rl=40, development=20, test=20)
FILES = ("warm", "rl", "development", "test")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def terms_of(document):
    """The terms of a sum, read back from its document."""
    question = document.splitlines()[0].removeprefix("Question: ")
    words = {sums.number(n): str(n) for n in range(100)} | {"plus": "+", "minus": "-"}
    *parts, _, _ = question.split()  # "= ?" or "is what?"
    signed = "".join(words.get(part, part) for part in parts)
    return tuple(int(term) for term in re.findall(r"[+-]?\d+", signed))


def test_sums_say_what_they_mean():
    for problem in islice(sums.draw(sums.Level(words=0.5), seed=3), 300):
        terms = terms_of(problem.document())
        assert problem.document().endswith(f"\nAnswer: {sum(terms)}.")
        assert 4 <= len(terms) <= 5
        assert all(10 <= abs(term) <= 99 for term in terms)
        parts = problem.thought.split(", ")
        steps = [re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)", part) for part in parts]
        totals = [terms[0], *(int(step[4]) for step in steps)]
        assert totals == np.cumsum(terms).tolist()  # no running total is negative
        assert [int(step[1]) for step in steps] == totals[:-1]
        assert [int(step[2] + step[3]) for step in steps] == list(terms[1:])


def test_a_thought_is_inserted_between_tags():
    problem = Problem("1 + 1 = ?", "1 + 1 = 2", "2")
    assert problem.document() == "Question: 1 + 1 = ?\nAnswer: 2."
    assert problem.document(thought=True) == (
        "Question: 1 + 1 = ?\nAnswer:<think>1 + 1 = 2</think> 2."
    )


def test_grade_school_problems_lose_their_calculations(tmp_path):
    row = {"question": " How many? ", "answer": "2 * 3 = <<2*3=6>>6.\nSo 1,206.\n#### 1,206"}
    (tmp_path / "good.jsonl").write_text(json.dumps(row) + "\n")
    expected = Problem("How many?", "2 * 3 = 6.\nSo 1,206.", "1206")
    assert grade_school.read(tmp_path / "good.jsonl", seed=0) == [expected]
    (tmp_path / "bad.jsonl").write_text(json.dumps(row | {"answer": "six"}) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        grade_school.read(tmp_path / "bad.jsonl", seed=0)


def test_numbers_in_words_are_all_different():
    names = [sums.number(n) for n in range(100)]
    assert len(set(names)) == 100
    assert [names[n] for n in (0, 13, 20, 42, 99)] == [
        "zero", "thirteen", "twenty", "forty-two", "ninety-nine"
    ]  # fmt: skip


def write(path, seed):
    problems = sums.draw(sums.Level(), seed)
    texts.write(path, texts.split(problems, problems, SIZES), seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    write(path, seed=1)
    return path


def test_parts_share_no_problem(folder):
    problems = {
        name: [terms_of(r["text"]) for r in read(folder / f"{name}.jsonl")] for name in FILES
    }
    assert [len(problems[name]) for name in FILES] == [60, 40, 20, 20]
    every = [problem for part in problems.values() for problem in part]
    assert len(set(every)) == len(every)


def test_only_the_warm_start_has_thoughts_and_replay_has_its_share(folder):
    with_thought = lambda name: sum("<think>" in r["text"] for r in read(folder / f"{name}.jsonl"))
    assert 30 <= with_thought("warm") <= 50  # two thirds of 60
    assert [with_thought(name) for name in FILES[1:]] == [0, 0, 0]
    of = lambda name: {r["text"] for r in read(folder / f"{name}.jsonl")}
    replay = of("replay")
    assert of("rl") <= replay
    assert replay - of("rl") <= of("warm")
    assert len(replay - of("rl")) / len(replay) == pytest.approx(texts.REPLAY, abs=0.01)


def test_problems_are_those_of_the_documents(folder):
    for name in ("rl", "test"):
        documents = [r["text"] for r in read(folder / f"{name}.jsonl")]
        problems = read(folder / "problems" / f"{name}.jsonl")
        assert [f"{p['problem']} {p['answer']}." for p in problems] == documents


def test_texts_depend_on_the_seed_alone(folder, tmp_path):
    for name, seed in (("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, seed)
    read_all = lambda path: (path / "warm.jsonl").read_bytes()
    assert read_all(tmp_path / "same") == read_all(folder) != read_all(tmp_path / "other")


@pytest.mark.parametrize(("config_file", "scale"), [(a, "full"), (b, "small")])
def test_arms_start_from_the_warm_start_and_differ_as_they_are_called(config_file, scale, tmp_path):
    (tmp_path / "start").mkdir()
    assert scale in recipe.SCALES
    config = config_file.get_config(f"{tmp_path},{scale}")
    arms = experiment.arms_in_order(config, tmp_path / "chain")
    warm = str(tmp_path / "chain" / "warm")
    for name, arm in arms.items():
        check(dict(fields(arm)))
        if not name.endswith("_rlvr") and name != "warm":
            assert arm.init_from == warm
    flat = {name: dict(fields(arm)) for name, arm in arms.items()}
    differing = lambda a, b: {path for path in flat[a] if flat[a][path] != flat[b][path]}
    assert differing("rlp", "random") == {"objective"}
    assert differing("cpt", "cpt_replay") == {"data.train"}
    assert differing("rlp_rlvr", "cpt_rlvr") == {"init_from"}
    assert arms["cpt"].match == f"{tmp_path / 'chain' / 'rlp'}:flops"


# Results.


def thought(document, text, without, gain, closed=True, target=" 42."):
    return {
        "document": document,
        "thought": text,
        "target": target,
        "without": without,
        "gains": {"real": gain},
        "closed": closed,
    }


def test_scores_are_means_over_the_thoughts_of_a_document():
    found = real_model.by_document(
        [
            thought(5, "40 + 2 = 42", -3.0, 2.0),
            thought(5, "40 + 2 = 41", -3.0, -4.0, closed=False),
            thought(2, "42 or 43", -1.0, 0.5, target=" 42."),
        ]
    )
    assert found == {
        "without": [-1.0, -3.0],
        "thinking": [-0.5, -4.0],
        "right": [0.0, 0.5],
        "closed": [1.0, 0.5],
        "names": [1.0, 0.5],
    }


def unit(seed, shift):
    rng = np.random.default_rng(seed)
    thinking = rng.normal(-2, 1, 50)
    arm = lambda values: {
        "metrics": {"accuracy": 0.5},
        "metrics_after_rlvr": {"accuracy": 0.75},
        "documents": {
            "without": [-3.0] * 50, "thinking": list(values),
            "right": [0.5] * 50, "closed": [1.0] * 50, "names": [1.0] * 50,
        },
    }  # fmt: skip
    return {
        "setting": "a", "seed": seed, "scale": "small", "processor": "some",
        "arms": {"none": arm(thinking), "rlp": arm(thinking + shift)},
    }  # fmt: skip


def test_differences_are_paired_by_document():
    """A constant difference has no error, however different the documents are."""
    *_, none, rlp = real_model.table([unit(0, 0.25), unit(1, 0.25)]).strip().splitlines()
    cells = lambda row: [cell.strip() for cell in row.strip("|").split("|")]
    assert cells(none)[2:4] == ["", ""]
    assert cells(rlp)[2:4] == ["+0.250 ± 0.000", "0.000"]
    assert cells(rlp)[-2:] == ["50.0, 50.0", "75.0, 75.0"]
