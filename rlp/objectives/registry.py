"""The objectives over thoughts by name, and how to bring one of one's own."""

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

FUNCTIONS = ("reward", "advantages", "target_weights")  # of an objective
OBJECTIVES = {
    "rlp": Objective(
        formula="r = log p(y|c) - log p_φ(y)",
        source="RLP, arXiv 2510.01265",
        reward=rewards.gain,
    ),
    "rpt": Objective(
        formula="r = 1 if the likeliest token after c is what follows, byte for byte up to the end "
        "of a token, else 0",
        source="RPT, arXiv 2506.08007, with a greedy prediction",
        reward=rewards.match,
        advantages=standardized_advantages,
        reads=("matches",),
    ),
    "latro": Objective(
        formula="r = log p(y|c), and log p(y|c) is maximised itself",
        source="LaTRO, arXiv 2411.04282; its KL term is rlp.kl_weight",
        reward=rewards.evidence,
        target_weights=rewards.all_of_it,
    ),
    "jepo": Objective(
        formula="log mean_i p(y|c_i) is maximised, in thoughts and in y",
        source="JEPO with several samples, arXiv 2503.19618",
        reward=rewards.evidence,
        advantages=jensen_advantages,
        target_weights=rewards.by_posterior,
    ),
    "verifree": Objective(
        formula="r = p(y|c), and p(y|c) is maximised itself",
        source="VeriFree, arXiv 2505.21493",
        reward=rewards.probability,
        target_weights=rewards.by_probability,
    ),
    "rlpr": Objective(
        formula="r = clip(mean_h p(y_h|c) - mean_h p_φ(y_h), 0, 1)",
        source="RLPR, arXiv 2506.18254, without its filter of groups",
        reward=rewards.probability_gain,
        advantages=standardized_advantages,
        reads=("baseline",),
    ),
    "nover": Objective(
        formula="r = -exp(-log p(y|c) / (H N)), N = max(1, 1 + log |c|)",
        source="NOVER, arXiv 2505.16022: its reasoning perplexity alone, without ranks, without "
        "rewards for format and efficiency",
        reward=rewards.reasoning_perplexity,
        advantages=standardized_advantages,
    ),
    "rlvr": Objective(
        formula="r = 1 if the answer is right, else 0",
        source="verified answers: GRPO, arXiv 2402.03300; RLOO, arXiv 2402.14740, is "
        "rlp.advantages=leave_one_out",
        reward=rewards.correct,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "ttrl": Objective(
        formula="r = 1 if the answer is that of most responses of the group, else 0",
        source="TTRL, arXiv 2504.16084",
        reward=rewards.agrees,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "rlcr": Objective(
        formula="r = z - (q - z)², z = 1 if the answer is right, q the confidence it states",
        source="RLCR, arXiv 2507.16806",
        reward=rewards.calibrated,
        advantages=standardized_advantages,
        reads=("answers",),
    ),
    "hicra": Objective(
        formula="r as of rlvr; A + α |A| for planning tokens",
        source="HICRA, arXiv 2509.03646, with phrases that are given",
        reward=rewards.correct,
        advantages=standardized_advantages,
        reads=("answers",),
        weighs_planning=True,
    ),
    "random_reward": Objective(
        formula="r ~ U[0, 1)",
        source="control: what sampling and updating do alone",
        reward=rewards.noise,
    ),
    "permuted_reward": Objective(
        formula="r is the gain of a random thought of the group, each given once",
        source="control: gains of the right size at the wrong thoughts",
        reward=rewards.permuted_gain,
    ),
    "shuffled_target": Objective(
        formula="r = log p(y'|c), y' from another place of the document",
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
        source="control: longer thoughts, whatever they say",
        reward=rewards.length,
    ),
    "format_reward": Objective(
        formula="r = 1 if c closed by itself, else 0",
        source="control: thoughts that close, whatever they say",
        reward=rewards.closed,
    ),
}


def reads_answers(name: str) -> bool:
    """Whether the objective of that name is over the answers to problems."""
    return "answers" in find(name).reads


def find(name: str) -> Objective:
    """The objective of that name, or the one that "<module>:<name>" says where to import.

    An error that a function of an imported one raises becomes a UserCodeError, which names it.

    Raises:
      UserError: there is none.
    """
    found = find_named(
        "objective", name, OBJECTIVES, Objective, "rlp.objectives", others=["next_token"]
    )
    return found if name in OBJECTIVES else _watched(name, found)


@functools.cache  # one object a name, so that nothing is compiled twice
def _watched(name: str, objective: Objective) -> Objective:
    """The objective, whose functions tell which objective raised an error; ours are left alone."""
    what, file = f"objective={name!r}", user_code.file_of(name.partition(":")[0])

    def watch(
        called: str, function: Callable | None, check: Callable[[str, Callable], Callable]
    ) -> Any:
        if function is None or str(function.__module__).startswith("rlp."):
            return function
        return check(called, user_code.watched(called, function, file))

    own: dict[str, Any] = {
        field: watch(f"{field} of {what}", getattr(objective, field), _shaped)
        for field in FUNCTIONS
    }
    figures = {metric.name for metric, value in objective.metrics.items() if value is None}
    check = functools.partial(_checked_surrogate, figures)
    own["surrogate"] = watch(f"surrogate of {what}", objective.surrogate, check)
    own["metrics"] = {
        metric: watch(f"metric {metric.name!r} of {what}", value, _shaped)
        for metric, value in objective.metrics.items()
    }
    own["warnings"] = tuple(
        dataclasses.replace(rule, judge=user_code.watched(called, rule.judge, file))
        for rule in objective.warnings
        for called in [f"warning {rule.name!r} of {what}"]
    )
    return dataclasses.replace(objective, **own)


def _shaped(name: str, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of an objective, which must give a number for every thought, or one for all."""

    @functools.wraps(function)
    def run(first: Outcome | jax.Array, *rest: Any) -> jax.Array:
        found = function(first, *rest)
        shape = (first.closed if isinstance(first, Outcome) else first).shape
        _check_shape(name, found, "[B, K, G]", shape, ((), shape))
        return found

    return run


def _checked_surrogate(figures: set[str], name: str, surrogate: Surrogate) -> Surrogate:
    """A surrogate, which must give losses, and the figures that the objective's metrics name."""

    @functools.wraps(surrogate)
    def run(actions: Actions, settings: MethodFields) -> tuple[jax.Array, dict[str, jax.Array]]:
        made = surrogate(actions, settings)
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], dict):
            raise UserError(f"{name} must return its losses and a dict of figures ({{}} for none)")
        losses, found = made
        shape = actions.live.shape
        thoughts = (*shape[:-1], 1)
        _check_shape(name, losses, "[B, N, L] or [B, N, 1]", shape, (shape, thoughts))
        if odd := (found.keys() - {CLIPPED}) ^ figures:
            raise UserError(
                f"{name} returns the figures {sorted(found)}, and the objective's metrics without "
                f"a function are {sorted(figures)}; make {', '.join(sorted(odd))} one of both"
            )
        for figure, values in found.items():
            shapes = (shape, thoughts)
            _check_shape(f"{figure} of {name}", values, "[B, N, L] or [B, N, 1]", shape, shapes)
        return losses, found

    return run


def _check_shape(
    name: str, found: Any, axes: str, shape: tuple[int, ...], allowed: Collection[tuple[int, ...]]
) -> None:
    """Refuses what is not an array of one of the shapes that are allowed."""
    if not isinstance(found, jax.Array | np.ndarray | np.generic | int | float):
        raise UserError(f"{name} gives a {type(found).__name__} in place of an array {axes}")
    if np.shape(found) not in allowed:
        raise UserError(
            f"{name} gives an array {list(np.shape(found))} in place of {axes}, which is "
            f"{list(shape)} here"
        )
