"""The inverse of triangular matrices, also where a series of powers would lose all digits."""

import jax
import numpy as np
import pytest

from models.triangular import unit_inverse

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_it_inverts(size):
    lower = np.tril(RANDOM.normal(size=(2, 3, size, size)), k=-1).astype(np.float32) / size
    inverse = np.asarray(unit_inverse(lower))
    expected = np.linalg.inv(np.eye(size) + lower.astype(np.float64))
    np.testing.assert_allclose(inverse, expected, atol=1e-5)
    assert np.array_equal(inverse, np.tril(inverse))


def test_it_inverts_ones():
    """The inverse of ones has -1 below its diagonal; powers of ones have entries of 1e17."""
    inverse = unit_inverse(np.tril(np.ones((64, 64), np.float32), k=-1))
    np.testing.assert_array_equal(inverse, np.eye(64) - np.eye(64, k=-1))


def test_its_gradient_is_that_of_an_inverse():
    lower = np.tril(RANDOM.normal(size=(6, 6)), k=-1)
    cotangent = RANDOM.normal(size=(6, 6))
    with jax.enable_x64(True):
        (found,) = jax.vjp(unit_inverse, lower)[1](cotangent)
        whole = lambda x: jax.numpy.linalg.inv(x + np.eye(6))
        (expected,) = jax.vjp(whole, lower)[1](cotangent)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
