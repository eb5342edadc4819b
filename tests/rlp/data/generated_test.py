"""Problems and documents that reasoning-gym generates, by name."""

import inspect
import json
import re
import sys

import numpy as np
import pytest

from rlp.answers.gold_answers import GoldAnswers
from rlp.answers.grading import Grader
from rlp.answers.verifiers import gym
from rlp.answers.verifiers.gym import Name
from rlp.data.problem_format import ProblemFormat
from rlp.data.problems import problem_streams
from rlp.run import assembly
from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from tests.support import runs
from tests.support.documents import text_streams

BYTES = load_tokenizer("bytes")
SUMS = "reasoning_gym:chain_sum?max_terms=3&max_digits=2"
GRADER = Grader("reasoning_gym", 60, 1, "</think>")


@pytest.fixture(scope="module")
def factory():
    pytest.importorskip("reasoning_gym")
    from reasoning_gym import factory

    return factory


def streams(train="", verifier="math", **options):
    given = {
        "form": ProblemFormat("problem", "answer", instruction="Q: {problem}"),
        "ask": lambda text: text,
        "gold_answers": GoldAnswers(Grader(verifier, 60, 1, "</think>")),
        "tokenizer": BYTES,
        "sequence_length": 400,
    }
    return problem_streams(train=train, **given | options)


def problems(stream):
    """Return prompt and gold answer of every record of the first epoch, sorted."""
    batch, count = stream.batch(0, len(stream)), len(stream)
    prompts = [BYTES.decode(batch.tokens[k, : int(batch.forks[k, 0])]) for k in range(count)]
    return sorted(zip(prompts, [stream.answer(k) for k in range(count)], strict=True))


def test_a_list_is_split_at_commas_outside_of_brackets():
    names = ["reasoning_gym:a", 'reasoning_gym:b?of=["+","-"]&size=3', "reasoning_gym:c?x=1"]
    spec = f"{names[0]}, texts/a.jsonl,{names[1]},b.parquet ,{names[2]}"
    assert gym.split(spec) == (names, "texts/a.jsonl,b.parquet")
    assert gym.split("a.jsonl,b.jsonl") == ([], "a.jsonl,b.jsonl")


def test_a_name_is_that_of_its_options_in_any_order_and_is_read_back():
    name = Name.parse('reasoning_gym:b?size=3&of=["+","- %"]&text=x&flag=true', "data.train")
    assert name.values == {"size": 3, "of": ["+", "- %"], "text": "x", "flag": True, "seed": 0}
    same = Name.parse('reasoning_gym:b?flag=true&seed=0&text="x"&of=["%2b","- %25"]&size=3', "")
    assert name == same
    assert Name.parse(str(name), "") == name
    assert " " not in str(name)


def test_problems_are_the_entries_of_the_library(factory):
    train, held = streams(f"{SUMS}&size=20&seed=5", holdout_every=5)
    library = factory.create_dataset("chain_sum", max_terms=3, max_digits=2, size=20, seed=5)
    expected = [(f"Q: {entry['question']}", entry["answer"]) for entry in library]
    assert problems(held[""]) == sorted(expected[4::5])
    assert problems(train) == sorted(pair for k, pair in enumerate(expected) if k % 5 != 4)
    again, _ = streams(f"{SUMS}&seed=5&size=20", holdout_every=5)
    assert again.fingerprint() == train.fingerprint()
    assert runs.bits(again.batch(7, 30)) == runs.bits(train.batch(7, 30))
    other, _ = streams(f"{SUMS}&size=20&seed=6", holdout_every=5)
    assert other.fingerprint() != train.fingerprint()


def test_a_list_is_a_mixture_with_sizes_as_weights(factory, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"problem": "one?", "answer": 1}) + "\n")
    spec = f"{SUMS}&size=6,{path},reasoning_gym:gcd?size=3"
    held_out = [f"{SUMS}&seed=100&size=2", f"{SUMS}&seed=200&size=2", "reasoning_gym:lcm?size=2"]
    train, held = streams(spec, evaluation=",".join(held_out))
    prompts = [prompt for prompt, _ in problems(train)]
    assert sum("arithmetic problem" in prompt for prompt in prompts) == 6
    assert sum("Greatest Common Divisor" in prompt for prompt in prompts) == 3
    assert prompts[-1] == "Q: one?"
    assert list(held) == [
        *(f"chain_sum?max_digits=2&max_terms=3&seed={seed}&size=2" for seed in (100, 200)),
        "lcm",
    ]
    assert [len(stream) for stream in held.values()] == [2, 2, 2]


def test_scores_of_the_library_are_rewards(factory):
    train, _ = streams(f"{SUMS}&size=8", "reasoning_gym", holdout_every=4)
    library = factory.create_dataset("chain_sum", max_terms=3, max_digits=2, size=8, seed=0)
    entries = {entry["question"]: entry for entry in library}
    prompt, gold = problems(train)[0]
    entry = entries[prompt.removeprefix("Q: ")]
    answer = entry["answer"]
    responses = {
        f"so </think> {answer}": answer,
        f"</think>it is <answer> {answer}.0 </answer>.": f"{answer}.0",
        rf"</think>not \boxed{{0}}, it is \boxed{{ {answer} }} apples": answer,
        f"{answer} is my answer": f"{answer} is my answer",
        "</think><answer>no</answer>": "no",
    }
    grades = GRADER.grade(list(responses), gold)
    scores = [library.score_answer(text, entry) for text in responses.values()]
    assert [grade.reward for grade in grades] == scores
    assert [grade.correct for grade in grades] == [True, True, True, False, False]
    assert 0 < scores[3] < 1
    assert not any(grade.failed for grade in grades)


def test_a_scorer_grades_only_the_entry_that_the_prompt_has(factory):
    train, _ = streams(f"{SUMS}&size=8", "reasoning_gym", holdout_every=4)
    gold = train.answer(0)
    assert gym.score(gold.partition(" (")[0], gold) == 1
    digest = re.search(r"([0-9a-f]+)\)$", gold)[1]
    with pytest.raises(ValueError, match="is not the same in every process"):
        gym.score("1", gold.replace(digest, "0" * len(digest)))


def test_answers_of_files_have_no_scorer(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"problem": "one?", "answer": 1}) + "\n")
    with pytest.raises(UserError, match='has no scorer; set data.problems.verifier to "math"'):
        streams(str(path), "reasoning_gym")


@pytest.mark.parametrize(
    ("train", "evaluation", "message"),
    [
        ("chain_sums", "", "chain_sums.* is unknown; did you mean chain_sum?"),
        ("chain_sum?terms=3", "", "has no option terms; did you mean min_terms?"),
        ("chain_sum?max_terms=x", "", "; max_terms must be int, as its default 6"),
        ("chain_sum?max_terms=1", "", "refused by reasoning-gym: max_terms must be >= min_terms"),
        ("chain_sum?max_terms", "", "has no value for 'max_terms'; write max_terms=<value>"),
        ("chain_sum?size=0", "", "; size must be an integer from 1 on"),
        ("chain_sum?seed=a", "", "; seed must be an integer from 0 on"),
        ("chain_sum?size=20", "chain_sum?seed=19", "set its seed to 20 or more"),
        ("word_ladder", "", "does not generate the same entries every time; use another dataset"),
        ("codeio", "", "runs programs that its data contain"),
        ("n_queens?size=2", "", "evaluates responses as Python, so a model could run code"),
    ],
)
def test_what_cannot_be_used_is_named(factory, train, evaluation, message):
    names = [name and gym.PREFIX + name for name in (train, evaluation)]
    with pytest.raises(UserError, match=message):
        streams(names[0], "reasoning_gym", evaluation=names[1])


def test_without_the_package_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match=f"needs the package reasoning-gym.*{gym.INSTALL}"):
        streams(SUMS)


def test_every_scorer_that_evaluates_responses_is_known(factory):
    scorer = lambda dataset: inspect.getsource(dataset.score_answer)
    evaluating = {
        name
        for name, (dataset, _) in factory.DATASETS.items()
        if re.search(r"\b(eval|exec|parse_expr|sympify)\(", scorer(dataset))
    }
    # The first has a parser of its own, and the second evaluates its own answer.
    harmless = {"propositional_logic", "number_sorting"}
    assert evaluating - harmless == set(gym.EVALUATING)
    assert set(gym.UNUSABLE) <= factory.DATASETS.keys()


def test_entries_are_documents_with_the_fork_at_the_answer(factory):
    options = {"tokenizer": BYTES, "sequence_length": 200, "holdout_every": 4, "horizon": 2}
    train, held = text_streams(train=f"{SUMS}&size=20", fork_marker="Answer: ", **options)
    library = factory.create_dataset("chain_sum", max_terms=3, max_digits=2, size=20, seed=0)
    texts = [f"{entry['question']}\nAnswer: {entry['answer']}" for entry in library]
    found = []
    for stream in (train, held):
        batch = stream.batch(0, len(stream))
        for row in range(len(stream)):
            length, fork = int(batch.segment[row].sum()), int(batch.forks[row, 0])
            text = BYTES.decode(batch.tokens[row, len(BYTES.bos) : length - 1])
            found.append(text)
            assert text.endswith("Answer: " + text[fork - len(BYTES.bos) :])
    assert sorted(found) == sorted(texts)
    assert np.asarray(batch.forks).min() > 0


def test_a_config_names_generated_problems_and_documents(factory):
    changes = {
        "objective": "rlvr",
        "batch_size": 8,
        "data.sequence_length": 120,
        "data.problems.train": f"{SUMS}&size=12",
        "data.problems.evaluation": f"{SUMS}&size=4&seed=12",
        "data.problems.verifier": "reasoning_gym",
    }
    config = runs.config(runs.TEXT, changes)
    train, held_out = assembly.read_data(config, assembly.build(config))
    assert len(train) == 12
    assert list(held_out.problems) == ["chain_sum"]
    texts = {"batch_size": 8, "data.sequence_length": 120, "data.train": f"{SUMS}&size=12"}
    config = runs.config(runs.TEXT, texts)
    train, _ = assembly.read_data(config, assembly.build(config))
    assert train.fingerprint()["data.train"]["documents"] == 9
