"""Metrics of a benchmark, as functions of arrays [problems, runs].

`correct` is bool, [N, K]: whether the response of run k to problem n is correct. `answers` are N
lists of K answers, None for a response without one. Shares are in [0, 1]. The definitions of
pass@k, majority@k and the deviations over runs are those of NeMo-Skills (November 2025).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Answers = Sequence[Sequence[str | None]]


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of the responses to a benchmark.

    Attributes:
      problems, runs: N and K.
      accuracy: pass@1 averaged over runs.
      error_over_runs: its standard error over runs; None for one run.
      error_over_problems: its standard error over problems; None for one problem.
      deviation_over_runs: standard deviation of the accuracies of the runs; None for one run.
      deviation_within_problems: mean over problems of the standard deviation of a problem's
        responses; None for one run.
      pass_at: k → unbiased pass@k.
      majority_at: k → majority@k of the first k runs, for k of at least 2.
      complies: share of responses that have the format which their prompt asks for.
      no_answer: share of responses without an answer.
      truncated: share of responses that ended at the limit of tokens.
      failed: share of responses whose check exceeded its time or memory.
    """

    problems: int
    runs: int
    accuracy: float
    error_over_runs: float | None
    error_over_problems: float | None
    deviation_over_runs: float | None
    deviation_within_problems: float | None
    pass_at: dict[int, float]
    majority_at: dict[int, float]
    complies: float
    no_answer: float
    truncated: float
    failed: float


def score(
    correct: np.ndarray,
    answers: Answers,
    complies: np.ndarray,
    truncated: np.ndarray,
    failed: np.ndarray,
) -> Scores:
    """Return all metrics of the responses to a benchmark.

    Args:
      correct: bool [N, K].
      answers: N lists of K answers.
      complies: whether a response has the format that its prompt asks for, bool [N, K].
      truncated: whether a response ended at the limit of tokens, bool [N, K].
      failed: whether the check of a response exceeded its time or memory, bool [N, K].

    Raises:
      ValueError: If there is no response, or the shapes differ.
    """
    correct = _matrix(correct)
    shapes = {np.shape(x) for x in (correct, complies, truncated, failed)}
    if len(shapes) > 1 or {len(row) for row in answers} != {correct.shape[1]}:
        raise ValueError(f"the metrics of one benchmark have different shapes: {sorted(shapes)}")
    problems, runs = correct.shape
    return Scores(
        problems=problems,
        runs=runs,
        accuracy=accuracy(correct),
        error_over_runs=error_over_runs(correct),
        error_over_problems=error_over_problems(correct),
        deviation_over_runs=deviation_over_runs(correct),
        deviation_within_problems=deviation_within_problems(correct),
        pass_at={k: pass_at(correct, k) for k in _powers_of_two(runs)},
        majority_at={k: majority_at(correct, answers, k) for k in _powers_of_two(runs) if k > 1},
        complies=float(np.mean(complies)),
        no_answer=sum(answer is None for row in answers for answer in row) / correct.size,
        truncated=float(np.mean(truncated)),
        failed=float(np.mean(failed)),
    )


def accuracy(correct: np.ndarray) -> float:
    """Return pass@1, averaged over problems and runs."""
    return float(_matrix(correct).mean())


def pass_at(correct: np.ndarray, k: int) -> float:
    """Return the mean over problems of 1 - C(n-c, k) / C(n, k), for c correct ones of n responses.

    It is the probability that a random choice of k of the n responses contains a correct one, and
    an unbiased estimate of the same for k new responses (Chen et al., arXiv 2107.03374).

    Raises:
      ValueError: If k is not from 1 to the number of runs.
    """
    correct = _matrix(correct)
    runs = _checked(k, correct)
    missed = [math.comb(runs - int(c), k) / math.comb(runs, k) for c in correct.sum(axis=1)]
    return 1 - sum(missed) / len(missed)


def majority_at(correct: np.ndarray, answers: Answers, k: int) -> float:
    """Return the share of problems whose most frequent answer among the first k runs is correct.

    Responses without an answer do not vote; a problem without votes is not solved. Among several
    most frequent answers, the mean of their correctness counts. Answers are different texts: 0.5
    and 1/2 do not add up.

    Raises:
      ValueError: If k is not from 1 to the number of runs.
    """
    correct = _matrix(correct)
    _checked(k, correct)
    total = 0.0
    for row, verdicts in zip(answers, correct, strict=True):
        given = zip(row[:k], map(bool, verdicts[:k]), strict=True)
        votes = Counter((answer, right) for answer, right in given if answer is not None)
        most = max(votes.values(), default=0)
        winners = [right for (_, right), count in votes.items() if count == most]
        total += sum(winners) / len(winners) if winners else 0
    return total / len(correct)


def deviation_over_runs(correct: np.ndarray) -> float | None:
    """Return the standard deviation (ddof 1) of the accuracies of the runs; None for one run."""
    correct = _matrix(correct)
    return float(correct.mean(axis=0).std(ddof=1)) if correct.shape[1] > 1 else None


def error_over_runs(correct: np.ndarray) -> float | None:
    """Return the standard error of the accuracy over runs, their deviation / √K; None for one run.

    It says how much the sampling of responses matters, for these problems.
    """
    deviation = deviation_over_runs(correct)
    return None if deviation is None else deviation / math.sqrt(np.shape(correct)[1])


def deviation_within_problems(correct: np.ndarray) -> float | None:
    """Return the mean over problems of the standard deviation (ddof 1) of a problem's responses."""
    correct = _matrix(correct)
    return float(correct.std(axis=1, ddof=1).mean()) if correct.shape[1] > 1 else None


def error_over_problems(correct: np.ndarray) -> float | None:
    """Return the standard error of the accuracy over problems; None for one problem.

    The responses to a problem are one cluster: it is the standard deviation (ddof 1) of the means
    of problems / √N, and says how much the choice of these problems matters.
    """
    return _error(_matrix(correct).mean(axis=1))


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float | None]:
    """Return by how much the accuracy of `one` exceeds that of `other`, and its standard error.

    Both are responses to the same problems, [N, K] and [N, K'], so the error is that of the mean of
    the differences of problems, which is smaller than that of two independent accuracies.

    Raises:
      ValueError: If they have different numbers of problems.
    """
    means = [_matrix(x).mean(axis=1) for x in (one, other)]
    if len(means[0]) != len(means[1]):
        raise ValueError(f"{len(means[0])} and {len(means[1])} problems cannot be paired")
    gaps = means[0] - means[1]
    return float(gaps.mean()), _error(gaps)


def _error(values: np.ndarray) -> float | None:
    """Return the standard error of the mean of independent values; None for one value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _matrix(correct: np.ndarray) -> np.ndarray:
    array = np.asarray(correct, dtype=bool)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"verdicts must have the shape [problems, runs], not {array.shape}")
    return array


def _checked(k: int, correct: np.ndarray) -> int:
    """Return the number of runs after checking k."""
    runs = correct.shape[1]
    if not 1 <= k <= runs:
        raise ValueError(f"k must be from 1 to {runs}, the number of runs, not {k}")
    return runs


def _powers_of_two(runs: int) -> list[int]:
    """Return 1, 2, 4, … up to `runs`, and `runs` itself."""
    powers = [2**n for n in range(runs.bit_length()) if 2**n < runs]
    return [*powers, runs]
