"""Compare the attention implementations and their peers with `reference` on a workload."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.attention import contenders as case
from benchmarks.attention.peers import contenders
from benchmarks.attention.timing import Jitted
from benchmarks.attention.turns import Contender, Refused
from benchmarks.attention.workload import AttentionSizes, query_coordinates
from benchmarks.difference import relative_error
from rlp.runtime.errors import UserError

MAX_SCORES = 2**30  # float32 scores in the memory of `reference`; its gradient needs a few copies
# Limits of |difference| / |expected| due to rounding. The reference computes in float32 from the
# same inputs; the others round P, dS and results to the dtype of the inputs, each with a relative
# error of at most 2^-9 in bfloat16.
LIMITS = {"float32": 1e-5, "bfloat16": 1e-2}


def errors(
    sizes: AttentionSizes,
    implementations: Sequence[str],
    peers: Sequence[str],
    passes: Sequence[str],
) -> dict[str, dict[str, float | str]]:
    """Return relative errors by implementation and compared array, or why one is missing.

    Outputs of dead queries are ignored. Gradients are compared for this project's implementations
    alone; the outputs of peers are enough to show that they compute the same attention.

    Args:
      sizes: the workload.
      implementations: names of `models.attention.IMPLEMENTATIONS`, or "default".
      peers: names of peers.
      passes: the passes to compare, names of `PASSES`.

    Raises:
      UserError: If the workload is too large for `reference`.
    """
    scores = sizes.docs * sizes.heads * max(sizes.branches * sizes.slots, sizes.trunk)
    scores *= sizes.trunk + sizes.branches * sizes.slots
    if scores > MAX_SCORES:
        raise UserError(
            f"--check needs {scores} scores at once, more than {MAX_SCORES}; lower the sizes"
        )
    reference = case.product(sizes, "reference")
    results = [step for step in ("forward", "decode") if step in passes]
    gradients = any(step in passes for step in ("backward", "whole"))
    errors: dict[str, dict[str, float | str]] = {}
    # By default, some devices round the inputs of a float32 matmul.
    with jax.default_matmul_precision("highest"), contenders(sizes, implementations, peers) as all_:
        expected = {step: reference.output(step) for step in results}
        expected_gradients = reference.gradients() if gradients else {}
        for contender in all_:
            of_contender = errors.setdefault(contender.name, {})
            for step in results:
                if step in contender.passes:
                    of_contender[step] = _output_error(contender, step, expected[step], sizes)
            if isinstance(contender, Jitted) and contender.ours:
                of_contender |= _gradient_errors(contender, expected_gradients)
    return errors


def complaints(errors: dict[str, dict[str, Any]], dtype: str) -> list[str]:
    """Return a line for every error that is too large or NaN, and for this project's refusals."""
    lines = []
    for name, of_contender in errors.items():
        for what, error in of_contender.items():
            if isinstance(error, str):
                lines += [f"{name}: {what}: {error}"] if name.startswith(case.OURS) else []
            elif not error <= LIMITS[dtype]:
                lines.append(f"{name}: {what} is off by {error:.3g}, more than {LIMITS[dtype]:g}")
    return lines


def _output_error(
    contender: Contender, step: str, expected: np.ndarray, sizes: AttentionSizes
) -> float | str:
    try:
        output = contender.output(step).reshape(expected.shape)
    except Refused as why:
        return f"refused: {why}"
    live = query_coordinates(sizes, step == "decode").segment.reshape(sizes.docs, -1) > 0
    return relative_error(output[live], expected[live])


def _gradient_errors(contender: Jitted, expected: dict[str, np.ndarray]) -> dict[str, float | str]:
    if not expected:
        return {}
    try:
        gradients = contender.gradients()
    except Refused as why:
        return {"gradients": f"refused: {why}"}
    return {f"gradient of {n}": relative_error(gradients[n], x) for n, x in expected.items()}
