"""Metrics: they equal what an enumeration of choices and of runs gives."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from rlp.evaluation.benchmarks import metrics

MATRICES = list(itertools.product([0, 1], repeat=4))  # all verdicts of a problem with four runs
ANSWERS = ("1", "2", None)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_share_of_choices_that_contain_a_correct_response(k):
    for row in MATRICES:
        chosen = [any(choice) for choice in itertools.combinations(row, k)]
        assert metrics.pass_at([row], k) == pytest.approx(np.mean(chosen), abs=1e-12)
    expected = np.mean([metrics.pass_at([row], k) for row in MATRICES])
    assert metrics.pass_at(MATRICES, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_estimates_new_responses_without_bias():
    """The mean over all outcomes of four responses is that of two new ones."""
    p = 0.3
    chance = [p ** sum(row) * (1 - p) ** (4 - sum(row)) for row in MATRICES]
    mean = np.dot(chance, [metrics.pass_at([row], 2) for row in MATRICES])
    assert mean == pytest.approx(1 - (1 - p) ** 2, abs=1e-12)


def test_pass_at_one_is_the_accuracy_averaged_over_runs():
    correct = np.array(MATRICES)
    of_runs = [metrics.accuracy(correct[:, [run]]) for run in range(4)]
    assert metrics.accuracy(correct) == metrics.pass_at(correct, 1) == np.mean(of_runs) == 0.5


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_majority_is_that_of_a_random_choice_among_the_most_frequent(k):
    """All answers of a problem whose gold answer is 1, with the mean over the order of ties."""
    for answers in itertools.product(ANSWERS, repeat=4):
        correct = [answer == "1" for answer in answers]
        votes = Counter(answer for answer in answers[:k] if answer)
        top = [answer for answer in votes if votes[answer] == max(votes.values())]
        expected = sum(answer == "1" for answer in top) / len(top) if top else 0
        assert metrics.majority_at([correct], [answers], k) == expected


def test_majority_counts_texts_that_are_graded_differently_apart():
    answers, correct = [["0.5", "0.5", "1/2"]], [[True, True, True]]
    assert metrics.majority_at(correct, answers, 3) == 1
    assert metrics.majority_at([[True, False, False]], [["x", "x", "x"]], 3) == 0


def test_one_vote_is_the_first_run():
    correct = np.array(MATRICES)
    answers = [["1" if verdict else "2" for verdict in row] for row in MATRICES]
    assert metrics.majority_at(correct, answers, 1) == metrics.accuracy(correct[:, :1])


def test_errors_of_a_matrix_by_hand():
    """The example in NeMo-Skills' documentation of its deviations."""
    correct = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]])
    assert metrics.deviation_over_runs(correct) == pytest.approx(1 / 6)
    assert metrics.error_over_runs(correct) == pytest.approx(1 / 12)
    within = (2 * np.sqrt(1 / 3) + 0.5) / 3
    assert metrics.deviation_within_problems(correct) == pytest.approx(within)
    means = [0.5, 0.5, 0.75]
    assert metrics.error_over_problems(correct) == pytest.approx(np.std(means, ddof=1) / 3**0.5)


def test_repeating_every_response_does_not_change_the_error_over_problems():
    """Responses to a problem are one cluster, so copies add no information."""
    correct = np.random.default_rng(0).random((20, 3)) < 0.4
    copies = np.repeat(correct, 5, axis=1)
    assert metrics.error_over_problems(copies) == pytest.approx(
        metrics.error_over_problems(correct), abs=1e-12
    )


def test_a_paired_difference_is_that_of_the_accuracies():
    generator = np.random.default_rng(1)
    one, other = generator.random((30, 4)) < 0.6, generator.random((30, 2)) < 0.5
    gap, error = metrics.difference(one, other)
    assert gap == pytest.approx(metrics.accuracy(one) - metrics.accuracy(other), abs=1e-12)
    back, same = metrics.difference(other, one)
    assert (back, same) == (pytest.approx(-gap), pytest.approx(error))
    assert metrics.difference(one, one) == (0, 0)


def test_one_run_and_one_problem_have_no_errors():
    assert metrics.error_over_runs([[1], [0]]) is None
    assert metrics.deviation_within_problems([[1], [0]]) is None
    assert metrics.error_over_problems([[1, 0]]) is None
    assert metrics.difference([[1]], [[0]]) == (1, None)


def scored(correct, answers, **changes):
    no = np.zeros(np.shape(correct), bool)
    arguments = {"complies": no, "truncated": no, "failed": no} | changes
    return metrics.score(np.array(correct), answers, **arguments)


def test_all_scores_of_a_benchmark():
    correct = [[True, False, False], [True, True, False]]
    answers = [["1", "2", None], ["3", "3", "4"]]
    yes = np.array([[True, True, False], [True, False, False]])
    scores = scored(correct, answers, complies=yes, truncated=~yes)
    assert (scores.problems, scores.runs, scores.accuracy) == (2, 3, 0.5)
    assert scores.pass_at == {k: metrics.pass_at(correct, k) for k in (1, 2, 3)}
    assert scores.majority_at == {2: 0.75, 3: 0.75}
    assert (scores.complies, scores.truncated, scores.failed) == (0.5, 0.5, 0)
    assert scores.no_answer == pytest.approx(1 / 6)
    assert all(value is not None for value in dataclasses.asdict(scores).values())


def test_wrong_shapes_are_refused():
    for bad in ([], [[]], [1, 0]):
        with pytest.raises(ValueError, match="shape"):
            metrics.accuracy(bad)
    with pytest.raises(ValueError, match="different shapes"):
        scored([[1, 0]], [["1", "2"]], failed=np.zeros((1, 3), bool))
    with pytest.raises(ValueError, match="different shapes"):
        scored([[1, 0]], [["1"]])
    for k in (0, 3):
        with pytest.raises(ValueError, match="k must be from 1 to 2"):
            metrics.pass_at([[1, 0]], k)
    with pytest.raises(ValueError, match="cannot be paired"):
        metrics.difference([[1]], [[1], [0]])
