"""The objectives over thoughts by name, and loading of user-defined ones."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from configs.default import MethodFields
from rlp.objectives import rewards
from rlp.objectives.equations import jensen_advantages, standardized_advantages
from rlp.objectives.outcome import Outcome
from rlp.objectives.record import Objective
from rlp.objectives.surrogates import CLIPPED, Actions, Surrogate
from rlp.runtime import user_code
from rlp.runtime.errors import UserError
from rlp.runtime.lookup import find_named

FUNCTIONS = ("reward", "advantages", "target_weights")  # of `Objective`, with results [B, K, G]
OBJECTIVES = {
    "rlp": Objective(
        formula="r = log p(y|c) - log p_φ(y)",
        source="RLP, arXiv 2510.01265",
        reward=rewards.gain,
    ),
    "rpt": Objective(
        formula="r = 1 if the likeliest token after c matches the text, byte for byte up to the "
        "end of a token, else 0",
        source="RPT, arXiv 2506.08007, with a greedy prediction",
        reward=rewards.match,
        advantages=standardized_advantages,
        reads=("matches",),
    ),
    "latro": Objective(
        formula="r = log p(y|c); the loss also maximizes log p(y|c)",
        source="LaTRO, arXiv 2411.04282; its KL term is rlp.kl_weight",
        reward=rewards.evidence,
        target_weights=rewards.by_count,
    ),
    "jepo": Objective(
        formula="maximizes log mean_i p(y|c_i), through the thoughts and through y",
        source="JEPO with several samples, arXiv 2503.19618",
        reward=rewards.evidence,
        advantages=jensen_advantages,
        target_weights=rewards.by_posterior,
    ),
    "verifree": Objective(
        formula="r = p(y|c); the loss also maximizes p(y|c)",
        source="VeriFree, arXiv 2505.21493",
        reward=rewards.probability,
        target_weights=rewards.by_probability,
    ),
    "rlpr": Objective(
        formula="r = clip(mean_h p(y_h|c) - mean_h p_φ(y_h), 0, 1)",
        source="RLPR, arXiv 2506.18254, without its filtering of groups",
        reward=rewards.probability_gain,
        advantages=standardized_advantages,
        reads=("baseline",),
    ),
    "nover": Objective(
        formula="r = -exp(-log p(y|c) / (H N)), N = max(1, 1 + log |c|)",
        source="NOVER, arXiv 2505.16022: only its reasoning perplexity, without ranks and without "
        "rewards for format and efficiency",
        reward=rewards.reasoning_perplexity,
        advantages=standardized_advantages,
    ),
    "rlvr": Objective(
        formula="r = 1 if the answer is correct, else 0",
        source="verified answers: GRPO, arXiv 2402.03300; for RLOO, arXiv 2402.14740, set "
        "rlp.advantages=leave_one_out",
        reward=rewards.correct,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "ttrl": Objective(
        formula="r = 1 if the answer equals the majority answer of the group, else 0",
        source="TTRL, arXiv 2504.16084",
        reward=rewards.agrees,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "rlcr": Objective(
        formula="r = z - (q - z)², z = 1 if the answer is correct, q the stated confidence",
        source="RLCR, arXiv 2507.16806",
        reward=rewards.calibrated,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "hicra": Objective(
        formula="r as in rlvr; A + α |A| for planning tokens",
        source="HICRA, arXiv 2509.03646, with a given list of phrases",
        reward=rewards.correct,
        advantages=standardized_advantages,
        reads=("answers",),
        weighs_planning=True,
    ),
    "random_reward": Objective(
        formula="r ~ U[0, 1)",
        source="control: the effect of sampling and updates alone",
        reward=rewards.noise,
    ),
    "permuted_reward": Objective(
        formula="r = gains, randomly permuted within the group",
        source="control: gains of the right size for the wrong thoughts",
        reward=rewards.permuted_gain,
    ),
    "shuffled_target": Objective(
        formula="r = log p(y'|c), y' from another position of the document",
        source="control: thoughts that help any text of the document",
        reward=rewards.gain_elsewhere,
        reads=("elsewhere",),
    ),
    "other_document": Objective(
        formula="r = log p(y'|x', c), x' and y' from another document",
        source="control: thoughts that help any document",
        reward=rewards.gain_in_another,
        reads=("in_another",),
    ),
    "length_reward": Objective(
        formula="r = |c| / L",
        source="control: longer thoughts, whatever their content",
        reward=rewards.length,
    ),
    "format_reward": Objective(
        formula="r = 1 if c closed by itself, else 0",
        source="control: thoughts that close, whatever their content",
        reward=rewards.closed,
    ),
}


def reads_answers(name: str) -> bool:
    """Return whether the objective rewards answers to problems."""
    return "answers" in find(name).reads


def find(name: str) -> Objective:
    """Return an objective: one of `OBJECTIVES`, or one imported as "<module>:<name>".

    Errors in the functions of an imported objective become a UserCodeError that names the function.

    Raises:
      UserError: If it does not exist.
    """
    objective = find_named(
        "objective", name, OBJECTIVES, Objective, "rlp.objectives", others=["next_token"]
    )
    return objective if name in OBJECTIVES else _checked(name, objective)


@functools.cache  # one object per name, so that jit does not compile its programs again
def _checked(name: str, objective: Objective) -> Objective:
    """Wrap an objective's functions, except those of `rlp`, to check shapes and name the function
    in errors."""
    what, file = f"objective={name!r}", user_code.file_of(name.partition(":")[0])

    def wrap(
        called: str, function: Callable | None, check: Callable[[str, Callable], Callable]
    ) -> Any:
        if function is None or str(function.__module__).startswith("rlp."):
            return function
        return check(called, user_code.watched(called, function, file))

    fields: dict[str, Any] = {
        field: wrap(f"{field} of {what}", getattr(objective, field), _checked_function)
        for field in FUNCTIONS
    }
    declared = {metric.name for metric, value in objective.metrics.items() if value is None}
    check = functools.partial(_checked_surrogate, declared)
    fields["surrogate"] = wrap(f"surrogate of {what}", objective.surrogate, check)
    fields["metrics"] = {
        metric: wrap(f"metric {metric.name!r} of {what}", value, _checked_function)
        for metric, value in objective.metrics.items()
    }
    fields["warnings"] = tuple(
        dataclasses.replace(rule, judge=user_code.watched(called, rule.judge, file))
        for rule in objective.warnings
        for called in [f"warning {rule.name!r} of {what}"]
    )
    return dataclasses.replace(objective, **fields)


def _checked_function(name: str, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Wrap a function of an objective, which must return [B, K, G] or a scalar."""

    @functools.wraps(function)
    def run(first: Outcome | jax.Array, *rest: Any) -> jax.Array:
        values = function(first, *rest)
        shape = (first.closed if isinstance(first, Outcome) else first).shape
        _check_shape(name, values, "[B, K, G]", shape, ((), shape))
        return values

    return run


def _checked_surrogate(declared: set[str], name: str, surrogate: Surrogate) -> Surrogate:
    """Wrap a surrogate, which must return losses and the `declared` metrics of its objective."""

    @functools.wraps(surrogate)
    def run(actions: Actions, settings: MethodFields) -> tuple[jax.Array, dict[str, jax.Array]]:
        result = surrogate(actions, settings)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise UserError(f"{name} must return losses and a dict of metrics ({{}} for none)")
        losses, metrics = result
        shape = actions.live.shape
        allowed = (shape, (*shape[:-1], 1))
        _check_shape(name, losses, "[B, N, L] or [B, N, 1]", shape, allowed)
        if mismatch := (metrics.keys() - {CLIPPED}) ^ declared:
            raise UserError(
                f"{name} returns the metrics {sorted(metrics)}, but its Objective declares "
                f"{sorted(declared)} without a function; add {', '.join(sorted(mismatch))} to both "
                "or to neither"
            )
        for metric, values in metrics.items():
            _check_shape(f"{metric} of {name}", values, "[B, N, L] or [B, N, 1]", shape, allowed)
        return losses, metrics

    return run


def _check_shape(
    name: str, values: Any, axes: str, shape: tuple[int, ...], allowed: Collection[tuple[int, ...]]
) -> None:
    """Raise UserError if `values` is not an array of an allowed shape."""
    if not isinstance(values, jax.Array | np.ndarray | np.generic | int | float):
        raise UserError(f"{name} returns a {type(values).__name__} instead of an array {axes}")
    if np.shape(values) not in allowed:
        raise UserError(
            f"{name} returns an array of shape {list(np.shape(values))} instead of {axes}, which "
            f"is {list(shape)} here"
        )
