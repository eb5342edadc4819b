"""How the rotary frequencies of a GGUF model are scaled, in the words of config.json.

llama.cpp has no type for the scaling of Llama 3.1 and 3.2: converters write, as a tensor, by what
each frequency is divided. From that the rule is found again, or the file is refused.
"""

import itertools
from typing import Any

import numpy as np

from models.rope import Rope
from rlp.interop.gguf.header import Header, numbers
from rlp.interop.gguf.keys import COUNT, NUMBER, TEXT, Keys
from rlp.interop.gguf.names import ROPE_FACTORS

Json = dict[str, Any]

TOLERANCE = 1e-6  # of a factor, which is a float32 in the file
ORIGINAL_LENGTHS = (8192, *(2**power for power in range(4, 21)))
YARN = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}


def read_scaling(header: Header, keys: Keys, config: Json) -> Json | None:
    """The field `rope_scaling` of config.json; None where nothing is scaled.

    Args:
      header: of the model.
      keys: of its architecture; those of the scaling count as used.
      config: with rope_theta, head_dim, max_position_embeddings and model_type.

    Raises:
      UserError: a scaling that is not supported.
    """
    scaling = _stated(keys, config)
    if ROPE_FACTORS not in header.tensors or config["model_type"] not in ("llama", "mistral"):
        return scaling
    factors = numbers(header.tensors[ROPE_FACTORS]).astype(np.float64).ravel()
    found = of_factors(factors, config["rope_theta"], config["head_dim"])
    if found is None or (found and scaling):
        reason = "are not a scaling that is known here" if found is None else "come on top of"
        told = "" if found is None else f" {keys.told('rope.scaling.factor')}"
        raise keys.refusal(f"the rotary factors in {ROPE_FACTORS} {reason}{told}")
    return found or scaling


def of_factors(factors: np.ndarray, theta: float, head_dim: int) -> Json | None:
    """The scaling that divides the frequencies by these factors, [head_dim / 2] float64.

    Returns:
      The field `rope_scaling`; {} if nothing is scaled, None if it is no known scaling.
    """
    if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
        return None
    if np.allclose(factors, 1, rtol=TOLERANCE, atol=0):
        return {}
    most = float(f"{factors.max():.7g}")
    if np.allclose(factors, most, rtol=TOLERANCE, atol=0) and most > 1:
        return {"rope_type": "linear", "factor": most}
    for factor, (original, high) in itertools.product(
        dict.fromkeys((most, 8.0, 32.0, 16.0, 4.0, 2.0)),
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
    """Original length and high_freq_factor of the line through the factors between 1 and the most.

    The share of a frequency that is kept is a line over the turns it makes. Length and both bounds
    times any number are the same line, so the lower bound is 1, as in all published configs.
    """
    most = factors.max()
    between = (factors > 1 + 1e-4) & (factors < most * (1 - 1e-4))
    if not between.any():
        return []
    kept = (1 / factors[between] - 1 / most) / (1 - 1 / most)
    turns = Rope(theta).frequencies(head_dim, local=False)[between] / (2 * np.pi)
    found = [(round((3 * kept[0] + 1) / turns[0]), 4.0)]  # with the published upper bound, 4
    if between.sum() > 1:
        slope, start = np.polyfit(turns, kept, 1)
        if start < 0:
            high = round(1 - 1 / start, 4)
            found.append((round(slope * (high - 1)), high))
    return found


def _stated(keys: Keys, config: Json) -> Json | None:
    """The scaling that the metadata states."""
    kind = keys.take("rope.scaling.type", TEXT, "linear")
    factor = keys.take("rope.scaling.factor", NUMBER, keys.take("rope.scale_linear", NUMBER, 0.0))
    original = keys.take(
        "rope.scaling.original_context_length", COUNT, config["max_position_embeddings"]
    )
    betas = {ours: keys.take(key, NUMBER, None) for key, ours in YARN.items()}
    if kind == "none" or factor in (0, 1):
        if kind not in ("none", "linear", "yarn"):
            raise keys.refusal(f"{keys.told('rope.scaling.type')} is not supported")
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise keys.refusal(f"{keys.told('rope.scaling.type')} is not supported")
    found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    return found | {name: x for name, x in betas.items() if x is not None}
