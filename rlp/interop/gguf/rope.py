"""Convert the scaling of rotary frequencies of a GGUF model to `rope_scaling` of config.json.

GGUF has no type for the scaling of Llama 3.1 and 3.2: converters write a tensor with the divisor of
each frequency. This module reconstructs the rule from the divisors, or refuses the file.
"""

import itertools
from typing import Any

import numpy as np

from models.rope import Rope
from rlp.interop.gguf.header import Header, numbers
from rlp.interop.gguf.keys import COUNT, NUMBER, TEXT, Keys
from rlp.interop.gguf.names import ROPE_FACTORS

Json = dict[str, Any]

TOLERANCE = 1e-6  # relative, of a factor, which is a float32 in the file
ORIGINAL_LENGTHS = (8192, *(2**power for power in range(4, 21)))
YARN = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}


def read_scaling(header: Header, keys: Keys, config: Json) -> Json | None:
    """Return the field `rope_scaling` of config.json; None without scaling.

    Args:
      header: header of the model.
      keys: keys of its architecture; those of the scaling are marked as used.
      config: contains rope_theta, head_dim, max_position_embeddings and model_type.

    Raises:
      UserError: If the scaling is not supported.
    """
    scaling = _from_metadata(keys, config)
    if ROPE_FACTORS not in header.tensors or config["model_type"] not in ("llama", "mistral"):
        return scaling
    factors = numbers(header.tensors[ROPE_FACTORS]).astype(np.float64).ravel()
    from_factors = of_factors(factors, config["rope_theta"], config["head_dim"])
    if from_factors is None:
        raise keys.refusal(f"the rotary factors in {ROPE_FACTORS} are not a supported scaling")
    if from_factors and scaling:
        factor = keys.shown("rope.scaling.factor")
        raise keys.refusal(f"it has both rotary factors in {ROPE_FACTORS} and {factor}")
    return from_factors or scaling


def of_factors(factors: np.ndarray, theta: float, head_dim: int) -> Json | None:
    """Reconstruct the scaling that divides the frequencies by `factors`, float64 [head_dim / 2].

    Returns:
      The field `rope_scaling`; {} if nothing is scaled, None if the scaling is unknown.
    """
    if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
        return None
    if np.allclose(factors, 1, rtol=TOLERANCE, atol=0):
        return {}
    largest = float(f"{factors.max():.7g}")
    if np.allclose(factors, largest, rtol=TOLERANCE, atol=0) and largest > 1:
        return {"rope_type": "linear", "factor": largest}
    for factor, (original, high) in itertools.product(
        dict.fromkeys((largest, 8.0, 32.0, 16.0, 4.0, 2.0)),
        [(length, 4.0) for length in ORIGINAL_LENGTHS] + _fitted(factors, theta, head_dim),
    ):
        if factor <= 1 or original < 1 or high <= 1:
            continue
        rope = Rope(
            theta,
            scaling="llama3",
            factor=factor,
            original_length=original,
            high_frequency_factor=high,
        )
        plain = Rope(theta).frequencies(head_dim, local=False)
        expected = plain / rope.frequencies(head_dim, local=False)
        if np.allclose(factors, expected, rtol=TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return None


def _fitted(factors: np.ndarray, theta: float, head_dim: int) -> list[tuple[int, float]]:
    """Fit the original length and high_freq_factor to the factors between 1 and the largest.

    The unscaled share of a frequency is a linear function of its number of turns. Scaling the
    length and both bounds by a number gives the same function, so the lower bound is set to 1, as
    in all published configs.
    """
    largest = factors.max()
    between = (factors > 1 + 1e-4) & (factors < largest * (1 - 1e-4))
    if not between.any():
        return []
    share = (1 / factors[between] - 1 / largest) / (1 - 1 / largest)
    turns = Rope(theta).frequencies(head_dim, local=False)[between] / (2 * np.pi)
    candidates = [(round((3 * share[0] + 1) / turns[0]), 4.0)]  # with the published upper bound, 4
    if between.sum() > 1:
        slope, start = np.polyfit(turns, share, 1)
        if start < 0:
            high = round(1 - 1 / start, 4)
            candidates.append((round(slope * (high - 1)), high))
    return candidates


def _from_metadata(keys: Keys, config: Json) -> Json | None:
    """Return the scaling in the metadata; None without scaling."""
    kind = keys.take("rope.scaling.type", TEXT, "linear")
    factor = keys.take("rope.scaling.factor", NUMBER, keys.take("rope.scale_linear", NUMBER, 0.0))
    original = keys.take(
        "rope.scaling.original_context_length", COUNT, config["max_position_embeddings"]
    )
    betas = {name: keys.take(key, NUMBER, None) for key, name in YARN.items()}
    if kind == "none" or factor in (0, 1):
        if kind not in ("none", "linear", "yarn"):
            raise keys.refusal(f"{keys.shown('rope.scaling.type')} is not supported")
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise keys.refusal(f"{keys.shown('rope.scaling.type')} is not supported")
    yarn = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    return yarn | {name: x for name, x in betas.items() if x is not None}
