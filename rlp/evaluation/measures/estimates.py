"""Means and ratios over documents, with standard errors."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that was estimated from documents.

    Attributes:
      value: the estimate; nan if nothing was measured.
      error: its standard error over documents; nan with fewer than two of them.
    """

    value: float
    error: float

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit."""
        return Estimate(self.value * factor, self.error * abs(factor))

    def exponential(self) -> "Estimate":
        """Return exp of the estimate, and its standard error by the delta method."""
        value = math.exp(min(self.value, 700.0))  # exp of more overflows
        return Estimate(value, value * self.error)

    def shown(self, form: str = ".3f") -> str:
        """Format the value and its standard error, if there is one."""
        error = "" if math.isnan(self.error) else f" ± {self.error:{form.lstrip('+')}}"
        return f"{self.value:{form}}{error}"


def ratio(values: np.ndarray, counts: np.ndarray, documents: np.ndarray) -> Estimate:
    """Return the sum of `values` over the sum of `counts`, for documents drawn independently.

    Several observations of a document are not independent, and documents may have different numbers
    of them. So the standard error is that of a ratio of sums over documents: with R the ratio, y_d
    and n_d the sums of document d, and D documents, it is
    sqrt(D / (D - 1) * sum_d (y_d - R n_d)^2) / sum_d n_d. If all n_d are equal, this is the usual
    standard error of the mean of D numbers. A document whose sums are both 0 was not measured, and
    is none of the D.

    Args:
      values: [n] observations, such as nats or differences of two of them.
      counts: [n] what they are divided by, such as tokens or bytes.
      documents: int [n], number of the document of each observation.
    """
    _, number = np.unique(documents, return_inverse=True)
    y = np.bincount(number, weights=np.asarray(values, np.float64))
    n = np.bincount(number, weights=np.asarray(counts, np.float64))
    measured = (y != 0) | (n > 0)
    y, n = y[measured], n[measured]
    if not n.sum():
        return Estimate(math.nan, math.nan)
    value, size = y.sum() / n.sum(), len(n)
    if size < 2:
        return Estimate(float(value), math.nan)
    squares = ((y - value * n) ** 2).sum() * size / (size - 1)
    return Estimate(float(value), float(math.sqrt(squares) / n.sum()))


def mean(values: np.ndarray, documents: np.ndarray) -> Estimate:
    """Return the mean of observations; arguments as in `ratio`."""
    return ratio(values, np.ones(len(values)), documents)
