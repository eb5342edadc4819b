"""Compare this project's step with the naive layout, on thoughts that the former sampled.

In float32, the two layouts differ by `LIMITS` at most.

In bfloat16, which keeps eight significant bits, they differ from each other as much as from the
exact result, and how much that is depends on depth and sizes. So the naive layout in float32 is the
reference there, and the root-mean-square error of the naive layout in bfloat16 is the unit. Every
result passes through the same rounded operations in both layouts, so the error of a correct step is
one unit, up to chance and to what the compiler does; `rounding_limit` derives the limit from these.

Advantages are differences of evidence within a group, so their error is that of a few numbers, and
it multiplies the whole gradient: at twelve layers 2 to 10% of it, when all other roundings make 2%.
Two correct steps differ in it by any factor. So the advantages of all gradients that are compared
in bfloat16 are computed from the evidence of this project's step, whose own error is checked.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.difference import relative_error
from benchmarks.step import naive
from benchmarks.step.naive import StepResults
from benchmarks.step.product import Case, batches, make_case, make_trainer
from benchmarks.step.workload import Workload
from models.sharding import IN_FLOAT32
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

# Limits of the differences in float32 due to rounding, by their names in the printed line.
LIMITS = {
    "evidence_error": 1e-3,  # nats, S_pred
    "baseline_error": 1e-3,  # nats, S_ema
    "logprob_error": 1e-3,  # nats, a sampled action
    "gradient_error": 1e-4,  # |difference| / |gradient|, the maximum over parameters
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
        if sizes.dtype == "float32":
            return differences(results, naive.step_results(case, *inputs))
        exact = in_dtype(case, "float32")
        expected, rounded = (naive.step_results(one, *inputs, results) for one in (exact, case))
    return differences(results, expected) | roundings(results, rounded, expected)


def in_dtype(case: Case, dtype: str) -> Case:
    """Return the case with another dtype of activations and matmuls."""
    return dataclasses.replace(case, model=dataclasses.replace(case.model, compute_dtype=dtype))


def differences(results: StepResults, expected: StepResults) -> dict[str, float]:
    """Return the largest errors of results; the keys are those of `LIMITS`."""
    largest = lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max()
    return _named("error", _errors(results, expected, largest, relative_error))


def roundings(
    results: StepResults, rounded: StepResults, expected: StepResults
) -> dict[str, float]:
    """Return the errors of results as multiples of the errors of rounded ones.

    Args:
      results: of the step.
      rounded: of the naive layout in the dtype of the step.
      expected: of the naive layout in float32.

    Returns:
      Ratios of root-mean-square errors, for the gradient the maximum over parameters; the keys are
      those of `limits` in bfloat16.
    """
    norm = lambda a, b: np.linalg.norm(np.ravel(a).astype(np.float64) - np.ravel(b))
    errors, units = (_errors(x, expected, norm, norm) for x in (results, rounded))
    return _named("roundings", jax.tree.map(np.divide, errors, units))


def limits(sizes: Workload) -> dict[str, float]:
    """Return the limits of the differences of a workload, by their names in the printed line.

    Thoughts of a fork share its document and its target, so they count as one: there are as many
    independent errors of evidence as forks, and of log-probabilities as forks × tokens of a
    thought. The gradient is a sum over the latter.
    """
    if sizes.dtype == "float32":
        return LIMITS
    forks = sizes.docs * sizes.positions
    of_forks, of_actions = rounding_limit(forks), rounding_limit(forks * sizes.thought)
    return {
        "evidence_roundings": of_forks,
        "baseline_roundings": of_forks,
        "logprob_roundings": of_actions,
        "gradient_roundings": of_actions,
    }


def rounding_limit(count: int) -> float:
    """Return the limit of the ratio of two root-mean-square errors of correct layouts.

    For `count` independent, equally distributed errors of each, the logarithm of the ratio has a
    standard deviation of about 1 / √count (Fisher's z); three are allowed. They are distributed
    equally up to the compiler: it does not round values between operations that it fuses, and it
    fuses others in another layout. Errors add by their squares, so twice as many roundings are a
    factor of √2, which is allowed, too. Equal distributions exceed the limit in 0.7% of steps with
    a count of 2, 0.2% with 4, and less than 0.01% from 16 on; layouts that round the same weights
    do so less often, because their errors are correlated.
    """
    return math.sqrt(2) * math.exp(3 / math.sqrt(count))


def complaints(differences: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Return a line for every difference that is above its limit or NaN."""
    return [
        f"{name}={differences[name]:.3g} is above {limit:.3g}"
        for name, limit in limits.items()
        if not differences[name] <= limit
    ]


Error = Callable[[Any, Any], Any]


def _errors(
    results: StepResults, expected: StepResults, of_scores: Error, of_gradient: Error
) -> dict[str, Any]:
    """Return the errors of results: numbers, and a tree of one for every parameter."""
    return {
        "evidence": of_scores(results.reasoned, expected.reasoned),
        "baseline": of_scores(results.baseline, expected.baseline),
        "logprob": of_scores(results.logprobs, expected.logprobs),
        "gradient": jax.tree.map(of_gradient, results.gradient, expected.gradient),
    }


def _named(unit: str, errors: dict[str, Any]) -> dict[str, float]:
    """Return the largest error of each name; NaN is the largest."""
    return {f"{name}_{unit}": float(np.max(jax.tree.leaves(x))) for name, x in errors.items()}


def sharpened(case: Case, seed: int) -> Params:
    """Return initial parameters with larger matrices."""
    enlarge = lambda path, x: x if path[-1].key in IN_FLOAT32 else SHARPENING * x
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

    def apply(self, gradients: Any, state: Any, params: Any, *, norm: jax.Array) -> tuple[Any, Any]:
        return params, gradients

    def shardings(self, params: Any, placed: Any, others: Any) -> Any:
        return placed
