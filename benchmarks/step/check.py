"""Equality of the product's step with the naive layout, on thoughts that the product sampled."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.step import naive
from benchmarks.step.difference import relative_error
from benchmarks.step.naive import Figures
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

# Largest differences that rounding in float32 explains, by name in the printed line.
LIMITS = {
    "evidence_error": 1e-3,  # nats, S_pred
    "baseline_error": 1e-3,  # nats, S_ema
    "logprob_error": 1e-3,  # nats, a sampled action
    "gradient_error": 1e-4,  # |difference| / |gradient|, of the parameter where it is largest
}
SHARPENING = 3.0  # on matrices: attention of fresh ones is so even that mistakes hardly show


def differences_of(sizes: Workload) -> dict[str, float]:
    """Both ways on the first documents of a workload; how far they are apart."""
    case, batch = make_case(sizes), batches(sizes, 1)[0]
    params, baseline = (sharpened(case, sizes.seed + number) for number in range(2))
    key = jax.random.key(sizes.seed)
    # Some devices round the inputs of a float32 matmul unless told not to.
    with jax.default_matmul_precision("highest"):
        found, thoughts = product(case, params, baseline, batch, key)
        expected = naive.figures(
            case, params, baseline, sizes.documents(sizes.docs), sizes.forks(), thoughts
        )
    return differences(found, expected)


def differences(found: Figures, expected: Figures) -> dict[str, float]:
    """How far two ways are apart; the keys are those of `LIMITS`."""
    largest = lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max())
    errors = jax.tree.map(relative_error, found.gradient, expected.gradient)
    return {
        "evidence_error": largest(found.reasoned, expected.reasoned),
        "baseline_error": largest(found.baseline, expected.baseline),
        "logprob_error": largest(found.logprobs, expected.logprobs),
        "gradient_error": float(np.max(jax.tree.leaves(errors))),  # a NaN stays one
    }


def complaints(differences: dict[str, float]) -> list[str]:
    """One line for every difference that is too large; a NaN is."""
    return [
        f"{name}={differences[name]:.3g} is above {limit:g}"
        for name, limit in LIMITS.items()
        if not differences[name] <= limit
    ]


def sharpened(case: Case, seed: int) -> Params:
    """Fresh parameters with larger matrices."""
    enlarge = lambda path, x: x if path[-1].key == "scale" else SHARPENING * x
    return jax.tree_util.tree_map_with_path(enlarge, init(case.model, jax.random.key(seed)))


def product(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> tuple[Figures, naive.Thoughts]:
    """The first step of the product, and the thoughts that it sampled.

    Thoughts and evidence are those of its stages, with all branches at once. The gradient is what a
    step of its trainer hands to the optimizer, with the rollout batches and micro-batches of the
    settings, which do not change any thought.
    """
    rollout, evidence = think(case, params, baseline, batch, key)
    grouped = lambda x: np.asarray(x).reshape(*evidence.reasoned.shape, *x.shape[2:])
    figures = Figures(
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
    return figures, thoughts


def think(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> tuple[Rollout, Evidence]:
    """The product's stages before the update, one after the other."""
    stage = lambda run: jax.jit(functools.partial(run, case.model, case.settings, case.vocabulary))
    reading = stage(read_stage)(params, baseline, batch, key, 0)
    no_think = stage(no_think_stage)(params, baseline, batch, reading)
    rollout = stage(rollout_stage)(params, reading)
    return rollout, stage(evidence_stage)(params, reading, no_think, rollout)


def trained_gradient(
    case: Case, params: Params, baseline: Params, batch: Batch, key: jax.Array
) -> Params:
    """What the first step of the product's trainer gives to its optimizer."""
    keeper = _Keeper(**vars(case.optimizer))
    trainer, shardings = make_trainer(dataclasses.replace(case, optimizer=keeper))
    # A step consumes its state; the parameters are still needed.
    own, phi = jax.tree.map(jnp.copy, (params, baseline))
    state = dataclasses.replace(new_state(own, keeper, baseline=False), baseline=phi)
    state, _, _ = trainer.step(jax.device_put(state, shardings), Rows.of(batch), key)
    return state.optimizer


class _Keeper(Optimizer):
    """Keeps the gradient as its state and leaves the parameters as they are."""

    def init(self, params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def apply(self, gradients: Any, state: Any, params: Any) -> tuple[Any, Any, jax.Array]:
        return params, gradients, jnp.zeros(())

    def shardings(self, params: Any, placed: Any, others: Any) -> Any:
        return placed
