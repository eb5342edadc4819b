"""Ratios over documents and their standard errors equal the textbook formulas."""

import math

import numpy as np
import pytest

from rlp.evaluation.measures.estimates import Estimate, mean, ratio

RANDOM = np.random.default_rng(0)


def test_with_equal_documents_it_is_the_mean_with_its_usual_error():
    values = RANDOM.normal(size=(7, 3))
    found = mean(values.ravel(), np.repeat(np.arange(7), 3))
    of_documents = values.mean(axis=1)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(of_documents.std(ddof=1) / math.sqrt(7))


def test_the_error_is_that_of_documents_drawn_again_and_again():
    """For many documents, the linearised error is the spread of the ratio over resamples."""
    count = 400
    sizes = RANDOM.integers(1, 9, count)
    documents = np.repeat(np.arange(count), sizes)
    values = RANDOM.normal(2, 1, count)[documents] + RANDOM.normal(size=len(documents))
    found = mean(values, documents)
    sums = np.bincount(documents, weights=values)
    drawn = RANDOM.integers(0, count, (4000, count))
    ratios = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    assert found.error == pytest.approx(ratios.std(), rel=0.05)


def test_neither_order_nor_names_of_documents_matter():
    values, counts = RANDOM.normal(size=12), RANDOM.integers(1, 5, 12)
    documents = RANDOM.integers(0, 4, 12)
    order = RANDOM.permutation(12)
    first = ratio(values, counts, documents)
    other = ratio(values[order], counts[order], 7 - documents[order])
    assert other.value == pytest.approx(first.value)
    assert other.error == pytest.approx(first.error)


def test_a_document_of_zeros_does_not_matter():
    some = ratio(np.array([1.0, 2.0]), np.array([1, 3]), np.array([0, 1]))
    assert ratio(np.array([1.0, 2.0, 0.0]), np.array([1, 3, 0]), np.array([0, 1, 2])) == some


def test_the_values_of_a_document_without_counts_are_in_the_sum():
    """Such as nats of tokens that end in the middle of a character, and so have no bytes."""
    values, counts = np.array([1.0, 1.0]), np.array([0, 2])
    found = ratio(values, counts, np.array([0, 1]))
    assert found.value == ratio(values, counts, np.array([0, 0])).value == 1.0
    # y - R n is 1 and -1, so the error is sqrt(2 / 1 * 2) / 2.
    assert found.error == pytest.approx(1.0)
    assert math.isnan(ratio(values, np.zeros(2), np.array([0, 1])).value)


def test_one_document_has_no_error_and_none_has_no_value():
    one = mean(np.array([1.0, 3.0]), np.array([5, 5]))
    assert one.value == 2
    assert math.isnan(one.error)
    assert one.shown() == "2.000"
    assert mean(np.array([]), np.array([], int)).shown() == "nan"


def test_the_error_of_a_perplexity_is_its_slope_times_that_of_the_loss():
    step = 1e-6
    found = Estimate(1.3, step).exponential()
    assert found.value == pytest.approx(math.exp(1.3))
    assert found.error == pytest.approx(math.exp(1.3 + step) - math.exp(1.3), rel=1e-4)
    assert found.shown("+.2f") == "+3.67 ± 0.00"
