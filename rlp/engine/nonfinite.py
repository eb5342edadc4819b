"""Find the first value that is not finite: of a parameter, or of a thought and its document.

The search runs only if a metric, which the host receives anyway, is not finite. It follows the
order of the computation, so that it names the cause and not its consequences.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from models.blocks import layer_numbers
from models.config import ModelConfig
from models.paths import by_name
from models.sharding import replicated
from models.transformer import Params
from rlp.engine.rollout import Rollout
from rlp.engine.step import Evidence
from rlp.runtime.errors import UserError

# Metrics that are finite in every step of a healthy run.
WATCHED = (
    "loss", "grad_norm", "reward_mean", "advantage_std", "thought_length", "reasoned_evidence",
    "baseline_evidence", "no_think_loss",
)  # fmt: skip
OVERFLOW = "lower optimizer.learning_rate, or set model.compute_dtype='float32' if it is not"
TOO_FAR = (
    "lower optimizer.learning_rate, rlp.updates_per_rollout or rlp.minibatches: the policy moved "
    "too far from the one that sampled"
)
WEIGHTS = "start again from a checkpoint or a model whose parameters are finite"
OBJECTIVE = "correct the objective, or what it reads"


def in_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of the watched metrics of a step that are not finite."""
    return [name for name in WATCHED if not np.isfinite(metrics.get(name, 0.0))]


def in_parameters(params: Params) -> str:
    """Describe the first parameter with values that are not finite; "" if there is none."""
    leaves = by_name(params)
    # The totals are replicated to every host, whatever the sharding of the parameters.
    sharding = next(iter(leaves.values())).sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    whole = replicated(mesh) if isinstance(mesh, Mesh) else None
    totals = np.asarray(jax.jit(_totals, out_shardings=whole)([*leaves.values()]))
    bad = [name for name, total in zip(leaves, totals, strict=True) if not np.isfinite(total)]
    if not bad:
        return ""
    name, *others = bad
    leaf = leaves[name]
    n = int(jax.jit(_count, out_shardings=whole)(leaf))
    more = f" (so do {len(others)} more parameters)" if others else ""
    return f"parameter {name} has {n:,} of {leaf.size:,} values that are not finite{more}"


def _totals(leaves: list[jax.Array]) -> jax.Array:
    """Return 0 for each parameter whose values are all finite, and NaN for the others."""
    # Counting takes ten times as long on a CPU, where the sum of a predicate is not vectorized.
    return jnp.stack([jnp.sum(leaf - leaf) for leaf in leaves])


def _count(leaf: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(leaf), dtype=jnp.int32)


def refuse_parameters(params: Params, of: str) -> None:
    """Raise UserError if a parameter of the model or checkpoint `of` is not finite."""
    if fault := in_parameters(params):
        raise UserError(f"{of}: {fault}; {WEIGHTS}")


def in_networks(networks: Mapping[str, Callable[[], Params | None]]) -> str:
    """Describe the first parameter of some networks that is not finite, with a cure; "" if none.

    Args:
      networks: a suffix for the message ("" for the trained network) to a function that returns the
        parameters, or None. They are called one at a time, since a call may copy parameters.
    """
    for suffix, get_params in networks.items():
        params = get_params()
        if params is not None and (fault := in_parameters(params)):
            return f"{fault}{suffix}; {WEIGHTS}"
    return ""


def in_thoughts(
    rollout: Rollout,
    evidence: Evidence,
    objective: str,
    record: Callable[[int], int],
    whole: Any,
) -> str:
    """Describe the first value of a step's thoughts that is not finite, with a cure; "" if none.

    Args:
      rollout, evidence: of the step.
      objective: its name.
      record: from a row of the batch to the number of its document in the stream.
      whole: the replicated sharding.
    """
    return _first_of(list(_of_thoughts(rollout, evidence, objective)), record, whole)


def in_new_logprobs(
    rollout: Rollout,
    evidence: Evidence,
    logprobs: jax.Array,
    record: Callable[[int], int],
    whole: Any,
) -> str:
    """Describe the first thought whose log-probability in the update, or whose ratio to the one at
    sampling, is not finite, with a cure; "" if all are finite.

    Args:
      rollout, evidence, record, whole: as in `in_thoughts`.
      logprobs: log pi_theta of the actions, [B, N, L] nats; 0 after the last action.
    """
    groups, limit = evidence.rewards.shape, logprobs.shape[-1]
    live = jnp.arange(limit)[None, None, :] < rollout.thoughts.length[..., None]
    ratio = jnp.where(live, jnp.exp(logprobs - rollout.thoughts.logprobs), 0.0)
    checks = [
        ("the log-probability of a thought", logprobs.sum(axis=-1).reshape(groups)),
        ("the sum of the ratios of a thought", ratio.sum(axis=-1).reshape(groups)),
    ]
    return _first_of([_Check(name, "update", x, TOO_FAR) for name, x in checks], record, whole)


class _Check(NamedTuple):
    """Values of thoughts that must be finite."""

    what: str  # description of the values
    stage: str  # that computes them
    values: jax.Array  # [B, K] or [B, K, G]
    cure: str


def _first_of(checks: Sequence[_Check], record: Callable[[int], int], whole: Any) -> str:
    """Describe the first value that is not finite, with a cure; "" if all are finite."""
    search = jax.jit(lambda arrays: [_first_bad(x) for x in arrays], out_shardings=whole)
    results = jax.device_get(search([check.values for check in checks]))
    for (what, stage, array, cure), (count, index, value) in zip(checks, results, strict=True):
        if count:
            where = _where(np.unravel_index(int(index), array.shape), record)
            more = f" ({int(count):,} of {array.size:,} are not finite)" if count > 1 else ""
            return f"{what} is {float(value)} for {where}{more}, in stage {stage!r}; {cure}"
    return ""


def in_gradient(
    compute: Callable[..., Params], arguments: Sequence[Any], model: ModelConfig, whole: Any
) -> str:
    """Describe the first gradient that is not finite in the backward pass, which runs from the last
    layer to the first, with a cure; "" if all are finite.

    Args:
      compute: returns the gradient; it is traced.
      arguments: of `compute`.
      model: config of the network.
      whole: the replicated sharding.
    """
    numbers = layer_numbers(model)
    shapes = by_name(jax.eval_shape(compute, *arguments))

    def counts(*arguments: Any) -> list[jax.Array]:
        """Count the values of each leaf that are not finite, by layer for `blocks`."""
        return [
            jnp.sum(
                ~jnp.isfinite(leaf), axis=tuple(range(name.startswith("blocks/"), leaf.ndim))
            ).reshape(-1)
            for name, leaf in by_name(compute(*arguments)).items()
        ]

    bad = []
    bad_counts = jax.device_get(jax.jit(counts, out_shardings=whole)(*arguments))
    for (name, leaf), of_layers in zip(shapes.items(), bad_counts, strict=True):
        if not of_layers.any():
            continue
        index = int(np.nonzero(of_layers)[0][-1])
        order, of_layer = (2 if name == "embedding" else 0, 0), ""
        if name.startswith("blocks/"):
            layer = numbers[name.split("/")[1]][index]
            order, of_layer = (1, -layer), f" of layer {layer} (counted from 0)"
        size = leaf.size // len(of_layers)
        count = int(of_layers[index])
        bad.append((order, f"{name}{of_layer} has {count:,} of {size:,} values"))
    if not bad:
        return ""
    _, first = min(bad)
    more = f" (so do the gradients of {len(bad) - 1} more parameters)" if len(bad) > 1 else ""
    return f"the gradient of {first} that are not finite{more}, in stage 'update'; {OVERFLOW}"


def _of_thoughts(rollout: Rollout, evidence: Evidence, objective: str) -> Iterator[_Check]:
    """Yield the checks of a step's thoughts, in the order of the computation."""
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
        what = "the log-probability of a thought under the reference"
        yield _Check(what, "reference", reference, OVERFLOW)


def _first_bad(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the number of values that are not finite, and flat index and value of the first."""
    flat = values.reshape(-1)
    bad = ~jnp.isfinite(flat)
    index = jnp.argmax(bad)
    return bad.sum(), index, flat[index]


def _where(index: tuple, record: Callable[[int], int]) -> str:
    row, fork, *thought = map(int, index)
    of = f"thought {thought[0]} of fork {fork}" if thought else f"fork {fork}"
    return f"{of} of document {record(row)} (row {row} of the batch; counted from 0)"


def in_rows(losses: np.ndarray, record: Callable[[int], int]) -> str:
    """Describe the first row whose loss is not finite, with a cure; "" if there is none.

    Args:
      losses: [B] nats.
      record: as in `in_thoughts`.
    """
    (bad,) = np.nonzero(~np.isfinite(losses))
    if not len(bad):
        return ""
    row = int(bad[0])
    more = f" ({len(bad):,} of {len(losses):,} rows are not finite)" if len(bad) > 1 else ""
    return (
        f"the loss is {float(losses[row])} for document {record(row)} (row {row} of the batch; "
        f"counted from 0){more}; {OVERFLOW}"
    )


def in_update(metrics: Mapping[str, float]) -> str:
    """Describe an update that is not finite although all its inputs are, with a cure."""
    if not np.isfinite(metrics.get("loss", 0.0)):
        what = "the loss is not finite, although parameters, rewards and log-probabilities are"
    elif not np.isfinite(metrics.get("grad_norm", 0.0)):
        what = "the gradient is not finite, although the parameters and the loss are"
    else:
        what = "the updated parameters overflow their dtype"
    return f"{what}; {OVERFLOW}"
