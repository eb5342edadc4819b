"""The difference of two arrays."""

from typing import Any

import numpy as np


def relative_error(actual: Any, expected: Any) -> float:
    """Return |actual - expected| / |expected| with L2 norms, in float64."""
    a, b = (np.ravel(x).astype(np.float64) for x in (actual, expected))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
