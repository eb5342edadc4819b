"""Which value is not finite: a parameter, or what a step makes of which thought.

A step tells that something is wrong by its figures, which come to the host anyway. Only then is
looked for the value, along the way of the data: what is found first is the cause of the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from models.paths import by_name
from models.sharding import replicated
from models.transformer import Params
from rlp.engine.rollout import Rollout
from rlp.engine.step import Evidence
from rlp.runtime.errors import UserError

# Figures that are finite in every step of a sound run.
WATCHED = (
    "loss", "grad_norm", "reward_mean", "advantage_std", "thought_length", "reasoned_evidence",
    "baseline_evidence", "no_think_loss",
)  # fmt: skip
OVERFLOW = "lower optimizer.learning_rate, or set model.dtype='float32' if it is not"
WEIGHTS = "start again from a checkpoint or a model whose parameters are finite"
OBJECTIVE = "correct the objective, or what it reads"


def amiss(metrics: Mapping[str, float]) -> list[str]:
    """The watched figures of a step that are not finite."""
    return [name for name in WATCHED if not np.isfinite(metrics.get(name, 0.0))]


def in_parameters(params: Params) -> str:
    """The first parameter that has values that are not finite, in words; "" if there is none."""
    leaves = by_name(params)
    # On every host whole, wherever the parameters lie.
    sharding = next(iter(leaves.values())).sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    whole = replicated(mesh) if isinstance(mesh, Mesh) else None
    count = jax.jit(_counts, out_shardings=whole)
    counts = np.asarray(count([*leaves.values()])).tolist()
    bad = [(name, leaf, n) for (name, leaf), n in zip(leaves.items(), counts, strict=True) if n]
    if not bad:
        return ""
    (name, leaf, n), *others = bad
    more = f" (and {len(others)} more parameters have some)" if others else ""
    return (
        f"parameter {name} has {n:,} value{'s' * (n > 1)} of {leaf.size:,} that "
        f"{'are' if n > 1 else 'is'} not finite{more}"
    )


def _counts(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32) for leaf in leaves])


def refuse_parameters(params: Params, of: str) -> None:
    """Raises UserError, naming the first parameter with values that are not finite."""
    if found := in_parameters(params):
        raise UserError(f"{of}: {found}; {WEIGHTS}")


def in_networks(networks: Mapping[str, Callable[[], Params | None]]) -> str:
    """The first parameter of some networks that is not finite, and what to do; "" for none.

    Args:
      networks: words for each ("" for the one that is trained) to what gives its parameters, if it
        has some; they are asked one after another, since giving them may take a copy.
    """
    for words, give in networks.items():
        params = give()
        if params is not None and (found := in_parameters(params)):
            return f"{found}{words}; {WEIGHTS}"
    return ""


def in_thoughts(
    rollout: Rollout,
    evidence: Evidence,
    objective: str,
    record: Callable[[int], int],
    whole: Any,
) -> str:
    """The first value that is not finite of what a step knows of its thoughts, and what to do; ""
    if there is none.

    Args:
      rollout, evidence: of a step.
      objective: its name.
      record: row of the batch to the number of its record in the stream.
      whole: sharding of arrays that every host has whole.
    """
    return _first_of(list(_of_thoughts(rollout, evidence, objective)), record, whole)


def in_new_logprobs(
    rollout: Rollout,
    evidence: Evidence,
    logprobs: jax.Array,
    record: Callable[[int], int],
    whole: Any,
) -> str:
    """Name the first thought whose log-probability in the update, or whose ratio to the one at
    sampling, is not finite; "" if all are finite.

    Args:
      rollout, evidence, record, whole: as of `in_thoughts`.
      logprobs: of the actions under theta, [B, N, L] nats; 0 after the last action.
    """
    groups, limit = evidence.rewards.shape, logprobs.shape[-1]
    live = jnp.arange(limit)[None, None, :] < rollout.thoughts.length[..., None]
    ratio = jnp.where(live, jnp.exp(logprobs - rollout.thoughts.logprobs), 0.0)
    checks = [
        ("the log-probability of a thought", logprobs.sum(axis=-1).reshape(groups)),
        ("the sum of the ratios of a thought", ratio.sum(axis=-1).reshape(groups)),
    ]
    return _first_of([_Check(name, "update", x, OVERFLOW) for name, x in checks], record, whole)


class _Check(NamedTuple):
    """Values of thoughts that must be finite."""

    words: str  # what they are
    stage: str  # that computes them
    values: jax.Array  # [B, K] or [B, K, G]
    cure: str


def _first_of(checks: Sequence[_Check], record: Callable[[int], int], whole: Any) -> str:
    find = jax.jit(lambda each: [_first_bad(x) for x in each], out_shardings=whole)
    found = jax.device_get(find([check.values for check in checks]))
    for (words, stage, array, cure), (count, place, value) in zip(checks, found, strict=True):
        if count:
            where = _where(np.unravel_index(int(place), array.shape), record)
            more = f" ({int(count):,} of {array.size:,} are not finite)" if count > 1 else ""
            return f"{words} is {float(value)} for {where}{more}, in stage {stage!r}; {cure}"
    return ""


def in_gradient(compute: Callable[..., Params], arguments: Sequence[Any], whole: Any) -> str:
    """Name the parameter whose gradient is the first that is not finite in the backward pass, which
    runs from the last layer to the first; "" if all are finite.

    Args:
      compute: returns the gradient; it is traced.
      arguments: of `compute`.
      whole: sharding of arrays that every host has whole.
    """
    shapes = by_name(jax.eval_shape(compute, *arguments))

    def counts(*arguments: Any) -> list[jax.Array]:
        """Of each leaf, the number of its values that are not finite, by layer for `blocks`."""
        return [
            jnp.sum(
                ~jnp.isfinite(leaf), axis=tuple(range(name.startswith("blocks/"), leaf.ndim))
            ).reshape(-1)
            for name, leaf in by_name(compute(*arguments)).items()
        ]

    bad = []
    found = jax.device_get(jax.jit(counts, out_shardings=whole)(*arguments))
    for (name, leaf), of_layers in zip(shapes.items(), found, strict=True):
        if not of_layers.any():
            continue
        layer = int(np.nonzero(of_layers)[0][-1])
        in_block = name.startswith("blocks/")
        order = (1, -layer) if in_block else (2 if name == "embedding" else 0, 0)
        of_layer = f" of layer {layer}" if in_block else ""
        size = leaf.size // len(of_layers)
        count = int(of_layers[layer])
        values = f"{count:,} value{'s' * (count > 1)} of {size:,}"
        bad.append((order, f"{name}{of_layer} has {values}", count))
    if not bad:
        return ""
    _, first, count = min(bad)
    more = f" (and {len(bad) - 1} more parameters have some)" if len(bad) > 1 else ""
    verb = "are" if count > 1 else "is"
    return f"the gradient of {first} that {verb} not finite{more}, in stage 'update'; {OVERFLOW}"


def _of_thoughts(rollout: Rollout, evidence: Evidence, objective: str) -> Iterator[_Check]:
    """What a step knows of its thoughts, in the order of the computation."""
    groups = evidence.rewards.shape
    answers = evidence.answers is not None
    stage = "answer_rewards" if answers else "evidence"
    sampled = rollout.thoughts.logprobs.sum(axis=-1).reshape(groups)
    yield _Check("the log-probability of a sampled thought", "rollout", sampled, OVERFLOW)
    if not answers:
        text = "the log-probability of the text"
        yield _Check(f"{text} without a thought", "no_think", evidence.baseline, OVERFLOW)
        yield _Check(f"{text} after a thought", stage, evidence.reasoned, OVERFLOW)
    of_objective = f"of objective={objective!r}"
    yield _Check(f"the reward {of_objective}", stage, evidence.rewards, OBJECTIVE)
    yield _Check(f"the advantage {of_objective}", stage, evidence.advantages, OBJECTIVE)
    if evidence.target_weights is not None:
        weights = evidence.target_weights
        yield _Check(f"the target's weight {of_objective}", stage, weights, OBJECTIVE)
    if evidence.reference is not None:
        reference = evidence.reference.sum(axis=-1).reshape(groups)
        words = "the log-probability of a thought under the reference"
        yield _Check(words, "reference", reference, OVERFLOW)


def _first_bad(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How many are not finite, the place of the first, flat, and its value."""
    flat = values.reshape(-1)
    bad = ~jnp.isfinite(flat)
    place = jnp.argmax(bad)
    return bad.sum(), place, flat[place]


def _where(place: tuple, record: Callable[[int], int]) -> str:
    row, fork, *thought = map(int, place)
    of = f"thought {thought[0]} of fork {fork}" if thought else f"fork {fork}"
    return f"{of} of document {record(row)} (row {row} of the batch; all counted from 0)"


def in_rows(losses: np.ndarray, record: Callable[[int], int]) -> str:
    """The first row whose loss is not finite, and what to do; "" if there is none.

    Args:
      losses: [B].
      record: as of `in_thoughts`.
    """
    (bad,) = np.nonzero(~np.isfinite(losses))
    if not len(bad):
        return ""
    row = int(bad[0])
    more = f" ({len(bad):,} of {len(losses):,} rows are not finite)" if len(bad) > 1 else ""
    return (
        f"the loss is {float(losses[row])} for the document {record(row)} (row {row} of the batch; "
        f"all counted from 0){more}; {OVERFLOW}"
    )


def in_update(metrics: Mapping[str, float]) -> str:
    """What is said where all that goes into an update is finite, and the update is not."""
    if not np.isfinite(metrics.get("loss", 0.0)):
        what = "the loss is not finite, while parameters, rewards and log-probabilities are"
    elif not np.isfinite(metrics.get("grad_norm", 0.0)):
        what = "the gradient is not finite, while parameters and the loss are"
    else:
        what = "the update takes parameters beyond what their type can hold"
    return f"{what}; {OVERFLOW}"
