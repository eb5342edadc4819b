"""Held-out metrics equal those computed from one thought at a time."""

import contextlib
import dataclasses
import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.sharding import make_mesh
from rlp.answers.grading import Grade
from rlp.data.batch import Problems
from rlp.engine.method import Method
from rlp.evaluation.answer_evaluator import AnswerEvaluator
from rlp.evaluation.answering import Answering, response_settings
from rlp.evaluation.evaluator import Evaluator
from rlp.metrics import catalogue
from tests.support import naive, tiny
from tests.support.tiny import CLOSE, OPEN

CONFIG = tiny.model_config()
WORDS = tiny.words(CONFIG)
PARAMS = tiny.params(CONFIG, 4)
LENGTHS = [12, 16, 9, 14]
BATCH = tiny.documents(0, LENGTHS, 16, 22)
KEY = jax.random.key(2)
PROMPT = (14, 5, 16)
# The group size, forks and rule of training differ from those of evaluation.
SETTINGS = tiny.rlp_settings(prompt=PROMPT, positions="entropy", temperature=0.9)
FORKS, THOUGHTS = 2, 3
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
METHOD = Method(CONFIG, SETTINGS, WORDS)
EVALUATOR = Evaluator(METHOD, "uniform", FORKS, THOUGHTS, 1, ONE_DEVICE)


@functools.cache
def held_out_metrics() -> dict[str, float]:
    """Metrics of four documents, computed from one document at a time."""
    return EVALUATOR.document_metrics(PARAMS, BATCH, KEY)


def rolled_out(group: int, temperature: float):
    """Thoughts of the evaluation, from the engine's rollout (which other tests check)."""
    settings = dataclasses.replace(
        SETTINGS,
        positions="uniform",
        forks_per_document=FORKS,
        group_size=group,
        temperature=temperature,
    )
    stage = tiny.rollout_stage(CONFIG, settings, WORDS)
    rollout, reading = stage(PARAMS, PARAMS, BATCH, KEY, jnp.int32(0))
    thoughts = jax.tree.map(np.asarray, rollout.thoughts)
    actual = []
    for b, n in np.ndindex(*thoughts.length.shape):
        line = thoughts.actions[b, n, : thoughts.length[b, n]].tolist()
        fork = int(reading.forks.position[b, n // group])
        actual.append((b, fork, naive.Branch(BATCH.tokens[b].tolist(), fork, line, 2)))
    return actual


def predictions(tokens, length) -> np.ndarray:
    """log p(· | …) at every place, [R, S, V]."""
    actual = naive.predictions(PARAMS, tokens, length, config=CONFIG, banned=WORDS.not_in_documents)
    return np.asarray(actual, np.float64)


def tables(rows: naive.Rows) -> np.ndarray:
    """log p(· | …) of every target token, [R, H, V]."""
    table = predictions(rows.tokens, rows.length)
    return table[np.arange(len(table))[:, None], rows.target_at - 1]


def test_metrics_are_those_of_a_slow_count():
    documents = predictions(BATCH.tokens, np.array(LENGTHS))

    def think(group, temperature):
        branches = rolled_out(group, temperature)
        rows = naive.write_out([b for *_, b in branches], WORDS, 4, 28, PROMPT)
        right, nats, gain = [], [], []
        for (b, fork, _), table, target in zip(branches, tables(rows), rows.target, strict=True):
            actual = [table[h, target[h]] for h in range(2)]
            without = [documents[b, fork + h - 1, target[h]] for h in range(2)]
            right += [table[h].argmax() == target[h] for h in range(2)]
            nats += [-x for x in actual]
            gain.append(sum(actual) - sum(without))
        return branches, np.mean(right), np.mean(nats), np.mean(gain)

    sampled, accuracy, loss, gain = think(THOUGHTS, SETTINGS.temperature)
    _, greedy_accuracy, _, _ = think(1, 0.0)
    places = {(b, fork) for b, fork, _ in sampled}
    assert len(places) == 4 * FORKS
    targets = [(b, fork + h) for b, fork in places for h in range(2)]
    no_think = [documents[b, t - 1, BATCH.tokens[b, t]] for b, t in targets]
    likeliest = [documents[b, t - 1].argmax() == BATCH.tokens[b, t] for b, t in targets]
    nats = [
        -documents[b, t - 1, BATCH.tokens[b, t]] for b, n in enumerate(LENGTHS) for t in range(1, n)
    ]
    actions = [branch.actions for *_, branch in sampled]
    by_hand = {
        "no_think_accuracy": np.mean(likeliest),
        "greedy_think_accuracy": greedy_accuracy,
        "sampled_think_accuracy": accuracy,
        "no_think_loss": -np.mean(no_think),
        "think_loss": loss,
        "mean_information_gain": gain,
        "thought_length": np.mean([len(line) for line in actions]),
        "closed_fraction": np.mean([line[-1] == CLOSE for line in actions]),
        "document_loss": np.mean(nats),
    }
    actual = held_out_metrics()
    assert set(actual) == set(by_hand) == set(catalogue.names("documents"))
    for name, value in by_hand.items():
        assert actual[name] == pytest.approx(float(value), rel=1e-5, abs=1e-5), name
    assert 0 < actual["closed_fraction"] < 1


def test_metrics_are_the_same_every_time():
    assert EVALUATOR.document_metrics(PARAMS, BATCH, KEY) == held_out_metrics()
    assert EVALUATOR.document_metrics(PARAMS, BATCH, jax.random.key(3)) != held_out_metrics()


@pytest.mark.slow  # two more compilations
def test_metrics_do_not_depend_on_the_batch():
    # In batches of three documents and of one, weighted by their documents.
    uneven = dataclasses.replace(EVALUATOR, batch_size=3).document_metrics(PARAMS, BATCH, KEY)
    for name, value in held_out_metrics().items():
        assert uneven[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 8, 1)], ids=str)
def test_metrics_and_thoughts_do_not_depend_on_the_mesh(sizes):
    """Five documents, a number that does not divide over any mesh."""
    five = tiny.documents(1, [12, 16, 9, 14, 13], 16, 22)
    actual = []
    for mesh in (ONE_DEVICE, make_mesh(*sizes)):
        evaluator = dataclasses.replace(EVALUATOR, batch_size=5, mesh=mesh)
        pieces = lambda ids: [str(i) for i in ids]
        browsed = evaluator.browse(PARAMS, tiny.rows(five, slice(3)), KEY, pieces, " ", 3)
        actual.append((evaluator.document_metrics(PARAMS, five, KEY), browsed))
    (one, one_browsed), (spread, browsed) = actual
    for name, value in one.items():
        assert spread[name] == pytest.approx(value, rel=1e-5, abs=2e-6), name
    words = lambda documents: [
        [[t["pieces"] for t in position["thoughts"]] for position in document["positions"]]
        for document in documents
    ]
    assert words(browsed) == words(one_browsed)
    assert len(browsed) == 3


def test_a_watcher_sees_every_batch():
    seen = []

    def watch(parts):
        seen.extend(parts)
        return iter(parts)

    EVALUATOR.document_metrics(PARAMS, BATCH, KEY, watch)
    assert [part.index.tolist() for part in seen] == [[100], [101], [102], [103]]


def test_browsing_shows_thoughts_with_their_worth():
    given = BATCH.replace(forks=np.array([[3], [-1], [4], [5]], np.int32))
    pieces = lambda ids: [str(i) for i in ids]
    actual = EVALUATOR.browse(PARAMS, given, KEY, pieces, " ", positions=3)
    assert [len(d["tokens"]) for d in actual] == LENGTHS
    for row, document in enumerate(actual):
        assert document["tokens"] == pieces(BATCH.tokens[row, : LENGTHS[row]])
        assert document["separator"] == " "
        forks = [p["fork"] for p in document["positions"]]
        assert forks == sorted(set(forks))
        assert {1, LENGTHS[row] - 2} <= set(forks)
        assert given.forks[row, 0] < 0 or given.forks[row, 0] in forks
        for place in document["positions"]:
            fork = place["fork"]
            assert place["target"] == document["tokens"][fork : fork + 2]
            rewards = [t["reward"] for t in place["thoughts"]]
            assert len(rewards) == THOUGHTS
            assert place["information_gain"] == pytest.approx(np.mean(rewards), abs=1e-5)
            expected = naive.leave_one_out(rewards, [True] * THOUGHTS)
            assert [t["advantage"] for t in place["thoughts"]] == pytest.approx(expected, abs=1e-4)
            for thought in place["thoughts"]:
                gain = thought["reasoned_logprob"] - place["baseline_logprob"]
                assert thought["reward"] == pytest.approx(gain, abs=1e-4)
                assert str(CLOSE) not in thought["pieces"]

    # The metrics of one thought, by hand.
    place = actual[0]["positions"][1]
    thought = place["thoughts"][2]
    actions = [*map(int, thought["pieces"]), *[CLOSE] * thought["closed"]]
    branch = naive.Branch(BATCH.tokens[0].tolist(), place["fork"], actions, 2)
    rows = naive.write_out([branch], WORDS, 4, 28, PROMPT)
    by_hand = naive.target_logprobs(PARAMS, rows, config=CONFIG, vocabulary=WORDS).sum()
    assert thought["reasoned_logprob"] == pytest.approx(float(by_hand), abs=1e-4)


# Problems.


class FirstWord:
    """Grades in this process; the first word is the answer."""

    def step(self):
        return contextlib.nullcontext()

    def grade_all(self, groups, answers, left):
        given = [[text.split()[0] if text else None for text in group] for group in groups]
        return [
            [
                Grade(
                    word, word == answer, word == Counter(words).most_common(1)[0][0], None, False
                )
                for word in words
            ]
            for words, answer in zip(given, answers, strict=True)
        ]


def test_metrics_of_answers_are_those_of_the_responses_that_are_shown():
    settings = response_settings(dataclasses.replace(SETTINGS, objective="rlvr"), 3)
    answering = Answering(
        method=Method(CONFIG, settings, WORDS),
        response_format=None,
        grader=FirstWord(),
        decode=lambda ids: " ".join(map(str, ids)),
        texts=None,
        phrases=(),
    )
    prompts = dataclasses.replace(BATCH, forks=np.array(LENGTHS, np.int32)[:, None] - 1)
    prompts = dataclasses.replace(prompts, index=np.arange(4, dtype=np.int32))
    # By hand, the first greedy action is correct for the first and the last problem.
    asked = np.array(BATCH.tokens)
    at = prompts.forks[:, 0]
    asked[np.arange(4), at] = OPEN
    banned = (*WORDS.not_in_thoughts, CLOSE)  # a response has at least one word
    table = naive.predictions(PARAMS, asked, at + 1, config=CONFIG, banned=banned)
    second, first = np.argsort(np.asarray(table)[np.arange(4), at], axis=-1)[:, -2:].T
    right = tuple(map(str, (first[0], second[1], second[2], first[3])))
    files = {
        "a": Problems(tiny.rows(prompts, slice(3)), right[:3]),
        "b": Problems(tiny.rows(prompts, slice(3, 4)), right[3:]),
    }
    evaluator = AnswerEvaluator(answering, 64, 2, ONE_DEVICE)
    actual = evaluator.problem_metrics(PARAMS, files, KEY)
    shown = evaluator.browse(PARAMS, files, KEY, 4)
    assert [(problem["file"], problem["answer"]) for problem in shown] == list(
        zip("aaab", right, strict=True)
    )
    accuracy = [np.mean([one["correct"] for one in problem["responses"]]) for problem in shown]
    assert 0 < min(accuracy) < max(accuracy) < 1
    by_file = np.mean(accuracy[:3]), accuracy[3]
    assert (actual["accuracy/a"], actual["accuracy/b"]) == pytest.approx(by_file)
    assert actual["accuracy"] == pytest.approx(np.mean(by_file))  # each file has the same weight
    assert actual["any_accuracy"] == 1
    closed = [[one["closed"] for one in problem["responses"]] for problem in shown]
    by_file = np.mean(closed[:3]), np.mean(closed[3])
    assert actual["response_closed_fraction"] == pytest.approx(np.mean(by_file))
    words = [
        np.mean([len(one["text"].split()) + one["closed"] for one in problem["responses"]])
        for problem in shown
    ]
    assert actual["response_length"] == pytest.approx(np.mean([np.mean(words[:3]), words[3]]))
    by_file = np.mean([str(first[row]) == right[row] for row in range(3)]), 1.0
    assert actual["greedy_accuracy"] == pytest.approx(np.mean(by_file))
