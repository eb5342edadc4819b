"""Compare this project's step with the naive layout, on thoughts that the former sampled.

In float32, the two layouts differ by the limits of `LIMITS` at most. In bfloat16, which keeps eight
significant bits, they differ from each other as much as from the exact result, and how much that is
depends on depth and sizes. So the naive layout in float32 is the reference there, and the error of
the naive layout in bfloat16 is the unit: it is the rounding of this dtype, at these sizes and on
these numbers. In both layouts, every result passes through the same number of rounded operations,
so the error of a correct step is about one such unit: 0.7 to 1.3 at all sizes that were tried with
unrolled layers, and up to 2.2 with scanned ones, whose roundings XLA places elsewhere. Two are
allowed, so with scanned layers a failure has to be confirmed in float32. Since independent errors
add by their squares, another error is detected if it is above 1.7 units.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.difference import relative_error
from benchmarks.step import naive
from benchmarks.step.naive import StepResults
from benchmarks.step.product import Case, batches, make_case, make_trainer
from benchmarks.step.workload import Workload
from models.transformer import Params, init
from rlp.data.batch import Batch
from rlp.data.rows import Rows
from rlp.engine.optimizer import Optimizer
from rlp.engine.rollout import Rollout
from rlp.engine.step import (
    Evidence,
    evidence_stage,
    new_state,
    no_think_stage,
    read_stage,
    rollout_stage,
)

# Limits of the differences due to rounding, by dtype and by their names in the printed line.
LIMITS = {
    "float32": {
        "evidence_error": 1e-3,  # nats, S_pred
        "baseline_error": 1e-3,  # nats, S_ema
        "logprob_error": 1e-3,  # nats, a sampled action
        "gradient_error": 1e-4,  # |difference| / |gradient|, the maximum over parameters
    },
    # The same errors as multiples of those of the naive layout in bfloat16.
    "bfloat16": {
        "evidence_roundings": 2.0,
        "baseline_roundings": 2.0,
        "logprob_roundings": 2.0,
        "gradient_roundings": 2.0,  # the maximum over parameters
    },
}
SHARPENING = 3.0  # factor of matrices: at initialization, attention is too uniform to show errors


def differences_of(sizes: Workload) -> dict[str, float]:
    """Run both on the first documents of a workload and return their differences.

    Returns:
      The errors against the naive layout in float32, and for bfloat16 also their multiples of the
      rounding of that dtype.
    """
    case, batch = make_case(sizes), batches(sizes, 1)[0]
    params, baseline = (sharpened(case, sizes.seed + number) for number in range(2))
    key = jax.random.key(sizes.seed)
    # By default, some devices round the inputs of a float32 matmul.
    with jax.default_matmul_precision("highest"):
        results, thoughts = product(case, params, baseline, batch, key)
        inputs = (params, baseline, sizes.documents(sizes.docs), sizes.forks(), thoughts)
        expected = naive.step_results(in_dtype(case, "float32"), *inputs)
        if sizes.dtype == "float32":
            return differences(results, expected)
        rounded = naive.step_results(case, *inputs)
    return differences(results, expected) | roundings(results, rounded, expected)


def in_dtype(case: Case, dtype: str) -> Case:
    """Return the case with another dtype of activations and matmuls."""
    return dataclasses.replace(case, model=dataclasses.replace(case.model, compute_dtype=dtype))


def differences(results: StepResults, expected: StepResults) -> dict[str, float]:
    """Return the largest errors of results; the keys are those of `LIMITS["float32"]`."""
    return {f"{name}_error": _largest(error) for name, error in _errors(results, expected).items()}


def roundings(
    results: StepResults, rounded: StepResults, expected: StepResults
) -> dict[str, float]:
    """Return the largest errors of results as multiples of the errors of rounded ones.

    Args:
      results: of the step.
      rounded: of the naive layout in the dtype of the step.
      expected: of the naive layout in float32.

    Returns:
      The multiples; the keys are those of `LIMITS["bfloat16"]`.
    """
    errors, units = _errors(results, expected), _errors(rounded, expected)
    multiples = jax.tree.map(np.divide, errors, units)
    return {f"{name}_roundings": _largest(multiples[name]) for name in errors}


def complaints(differences: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Return a line for every difference that is above its limit or NaN."""
    return [
        f"{name}={differences[name]:.3g} is above {limit:g}"
        for name, limit in limits.items()
        if not differences[name] <= limit
    ]


def _errors(results: StepResults, expected: StepResults) -> dict[str, Any]:
    """Return the errors of results: numbers, and a tree of one for every parameter."""
    largest = lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max())
    return {
        "evidence": largest(results.reasoned, expected.reasoned),
        "baseline": largest(results.baseline, expected.baseline),
        "logprob": largest(results.logprobs, expected.logprobs),
        "gradient": jax.tree.map(relative_error, results.gradient, expected.gradient),
    }


def _largest(errors: Any) -> float:
    return float(np.max(jax.tree.leaves(errors)))  # keeps NaN


def sharpened(case: Case, seed: int) -> Params:
    """Return initial parameters with larger matrices."""
    enlarge = lambda path, x: x if path[-1].key == "scale" else SHARPENING * x
    return jax.tree_util.tree_map_with_path(enlarge, init(case.model, jax.random.key(seed)))


def product(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> tuple[StepResults, naive.Thoughts]:
    """Run the first step and return its results and the sampled thoughts.

    Thoughts and evidence come from the stages, with all branches at once. The gradient is what a
    step of the trainer passes to the optimizer, with the rollout batches and micro-batches of the
    settings, which do not change the thoughts.
    """
    rollout, evidence = think(case, params, baseline, batch, key)
    grouped = lambda x: np.asarray(x).reshape(*evidence.reasoned.shape, *x.shape[2:])
    results = StepResults(
        reasoned=np.asarray(evidence.reasoned),
        baseline=np.asarray(evidence.baseline),
        logprobs=grouped(rollout.thoughts.logprobs),
        gradient=trained_gradient(case, params, baseline, batch, key),
    )
    actions, length = grouped(rollout.thoughts.actions), grouped(rollout.thoughts.length)
    docs, forks_each, group = length.shape
    sampled = lambda *at: actions[at][: length[at]].tolist()
    thoughts = [
        [[sampled(d, k, g) for g in range(group)] for k in range(forks_each)] for d in range(docs)
    ]
    return results, thoughts


def think(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> tuple[Rollout, Evidence]:
    """Run the stages before the update."""
    stage = lambda run: jax.jit(functools.partial(run, case.model, case.settings, case.vocabulary))
    reading = stage(read_stage)(params, baseline, batch, key, 0)
    no_think = stage(no_think_stage)(params, baseline, batch, reading)
    rollout = stage(rollout_stage)(params, reading)
    return rollout, stage(evidence_stage)(params, reading, no_think, rollout)


def trained_gradient(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> Params:
    """Return the gradient that the first step of the trainer passes to its optimizer."""
    keeper = _GradientKeeper(**vars(case.optimizer))
    trainer, shardings = make_trainer(dataclasses.replace(case, optimizer=keeper))
    # A step donates its state, but the parameters are used again.
    theta, phi = jax.tree.map(jnp.copy, (params, baseline))
    state = dataclasses.replace(new_state(theta, keeper, baseline=False), baseline=phi)
    state, _, _ = trainer.step(jax.device_put(state, shardings), Rows.of(batch), key)
    return state.optimizer


class _GradientKeeper(Optimizer):
    """An optimizer that stores the gradient as its state and does not change the parameters."""

    def init(self, params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def apply(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any, jax.Array]:
        return params, gradients, jnp.zeros(())

    def shardings(self, params: Any, placed: Any, others: Any) -> Any:
        return placed
