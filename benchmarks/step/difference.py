"""How far two arrays are apart."""

from typing import Any

import numpy as np


def relative_error(found: Any, expected: Any) -> float:
    """|found - expected| / |expected|, in float64."""
    a, b = (np.ravel(x).astype(np.float64) for x in (found, expected))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
