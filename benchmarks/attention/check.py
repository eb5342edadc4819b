"""Equality of attention's implementations, and of its peers, with `reference` on a workload."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.attention import contenders as case
from benchmarks.attention.peers import contenders
from benchmarks.attention.timing import Jitted
from benchmarks.attention.turns import Contender, Refused
from benchmarks.attention.workload import AttentionSizes, query_places
from benchmarks.step.difference import relative_error
from rlp.runtime.errors import UserError

MOST_SCORES = 2**30  # that `reference` may keep, of 4 bytes each; a few times, in its gradient
# |difference| / |expected| that rounding explains. The reference computes with the same inputs in
# float32; others round weights, gradients of scores and results to the dtype of the inputs, each
# with a relative error of 2^-9 at most in bfloat16.
LIMITS = {"float32": 1e-5, "bfloat16": 1e-2}


def errors(
    sizes: AttentionSizes,
    implementations: Sequence[str],
    peers: Sequence[str],
    passes: Sequence[str],
) -> dict[str, dict[str, float | str]]:
    """By implementation and by what is compared, the relative error, or why there is none.

    Results of dead queries, which mean nothing, do not count. Gradients are those of the product's
    implementations; peers are asked for results, which show that they compute the same thing.

    Raises:
      UserError: the workload is too large for `reference`.
    """
    scores = sizes.docs * sizes.heads * max(sizes.branches * sizes.slots, sizes.trunk)
    scores *= sizes.trunk + sizes.branches * sizes.slots
    if scores > MOST_SCORES:
        raise UserError(f"--check needs {scores} scores at once; it takes up to {MOST_SCORES}")
    reference = case.product(sizes, "reference")
    results = [step for step in ("forward", "decode") if step in passes]
    gradients = any(step in passes for step in ("backward", "whole"))
    found: dict[str, dict[str, float | str]] = {}
    # Some devices round the inputs of a float32 matmul unless told not to.
    with jax.default_matmul_precision("highest"), contenders(sizes, implementations, peers) as all_:
        expected = {step: reference.output(step) for step in results}
        slopes = reference.gradients() if gradients else {}
        for each in all_:
            found[each.name] = {}
            for step in results:
                if step in each.passes:
                    found[each.name][step] = _result_error(each, step, expected[step], sizes)
            if isinstance(each, Jitted) and each.ours:
                found[each.name] |= _gradient_errors(each, slopes)
    return found


def complaints(found: dict[str, dict[str, Any]], dtype: str) -> list[str]:
    """One line for every error that is too large, a NaN among them, and for refusals of ours."""
    lines = []
    for name, each in found.items():
        for what, error in each.items():
            if isinstance(error, str):
                lines += [f"{name}: {what}: {error}"] if name.startswith(case.OURS) else []
            elif not error <= LIMITS[dtype]:
                lines.append(f"{name}: {what} is off by {error:.3g}, more than {LIMITS[dtype]:g}")
    return lines


def _result_error(
    each: Contender, step: str, expected: np.ndarray, sizes: AttentionSizes
) -> float | str:
    try:
        found = each.output(step).reshape(expected.shape)
    except Refused as why:
        return f"refused: {why}"
    live = query_places(sizes, step == "decode").segment.reshape(sizes.docs, -1) > 0
    return relative_error(found[live], expected[live])


def _gradient_errors(each: Jitted, expected: dict[str, np.ndarray]) -> dict[str, float | str]:
    if not expected:
        return {}
    try:
        found = each.gradients()
    except Refused as why:
        return {"gradients": f"refused: {why}"}
    return {f"gradient of {n}": relative_error(found[n], x) for n, x in expected.items()}
