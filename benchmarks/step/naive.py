"""RLP with the prefix repeated for every thought: the reference for the shared computation.

    x_0 … x_{t-1}  <think>  c_1 … c_n  </think>  x_t … x_{t+H-1}

Every branch is a separate row, an ordinary document for the network, with the logits of all its
tokens. This module uses no shared trunks, slots or caches. Thoughts are inputs, not sampled.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.step.product import Case
from models.transformer import Params, bind
from models.tree import Trunk, forward

Thoughts = list[list[list[list[int]]]]  # [docs][K][G], actions with a sampled closing tag


@dataclasses.dataclass(frozen=True)
class StepResults:
    """The results of one step, for either implementation."""

    reasoned: np.ndarray  # [docs, K, G] nats, S_pred
    baseline: np.ndarray  # [docs, K] nats, S_ema
    logprobs: np.ndarray  # [docs, K, G, L] nats; 0 after the last action
    gradient: Params  # gradient of the loss with respect to theta


@flax.struct.dataclass
class Rows:
    """R rows of prefix, thought and target."""

    tokens: jax.Array  # [R, S] int32; 0 after the end
    length: jax.Array  # [R]
    actions: jax.Array  # [R, L]; 0 after the last
    count: jax.Array  # [R], actions
    first_action: jax.Array  # [R], its index in the row
    target: jax.Array  # [R, H]
    first_target: jax.Array  # [R], its index in the row


def step_results(
    case: Case,
    params: Params,
    baseline: Params,
    documents: list[list[int]],
    forks: list[int],
    thoughts: Thoughts,
    given: StepResults | None = None,
) -> StepResults:
    """Compute the results of a step from whole rows, one group of thoughts at a time.

    Args:
      case: network, settings and vocabulary.
      params: theta, with which the thoughts were also sampled.
      baseline: phi.
      documents: token ids of every document.
      forks: positions of the forks in every document.
      thoughts: the thoughts of every fork of every document.
      given: results with the evidence from which to compute the advantages; None for that of this
        computation.
    """
    tags = len(case.vocabulary.think_open) + len(case.vocabulary.think_close)
    width = max(forks) + case.settings.thought_length + case.settings.horizon + tags
    results: dict[str, list] = {"reasoned": [], "baseline": [], "logprobs": []}
    gradient = jax.tree.map(jnp.zeros_like, params)
    for d, (document, groups) in enumerate(zip(documents, thoughts, strict=True)):
        for k, (fork, group) in enumerate(zip(forks, groups, strict=True)):
            rows = write_rows(case, document, fork, group, width)
            logprobs, reasoned = _scores(case, params, rows)
            without = _scores(case, baseline, write_plain(case, document, fork, width))[1][0]
            evidence = (given.reasoned[d, k], given.baseline[d, k]) if given else None
            advantage = _advantage(*(evidence or (reasoned, without)))
            gradient = jax.tree.map(jnp.add, gradient, _gradient(case, params, rows, advantage))
            results["reasoned"].append(reasoned)
            results["baseline"].append(without)
            results["logprobs"].append(logprobs)
    shape = (len(documents), len(forks))
    arrays = {name: np.stack(rows) for name, rows in results.items()}
    groups_done = len(results["reasoned"])
    return StepResults(
        **{name: x.reshape(*shape, *x.shape[1:]) for name, x in arrays.items()},
        gradient=jax.tree.map(lambda x: x / groups_done, gradient),
    )


def _advantage(reasoned: Any, baseline: Any) -> np.ndarray:
    """Return the advantages [G], float32, of a group with this evidence, [G] and a number. Every
    thought is trained on, closed or not; the baseline cancels."""
    reward = np.asarray(reasoned, np.float64) - float(baseline)
    mean_of_others = (reward.sum() - reward) / (len(reward) - 1)
    return (reward - mean_of_others).astype(np.float32)


def write_rows(
    case: Case, document: list[int], fork: int, group: list[list[int]], width: int
) -> Rows:
    """Write the branches of one fork as rows of `width` tokens."""
    close = list(case.vocabulary.think_close)
    before = [*document[:fork], *case.vocabulary.think_open]
    target = document[fork : fork + case.settings.horizon]
    closed = lambda actions: actions[-len(close) :] == close
    pieces = [
        (before, actions, actions if closed(actions) else actions + close, target)
        for actions in group
    ]
    return _rows(pieces, case.settings.thought_length, width)


def write_plain(case: Case, document: list[int], fork: int, width: int) -> Rows:
    """Write one row without tags and thought, in which the target follows the prefix."""
    target = document[fork : fork + case.settings.horizon]
    return _rows([(document[:fork], [], [], target)], case.settings.thought_length, width)


Piece = tuple[list[int], list[int], list[int], list[int]]  # prefix, actions, thought, target


def _rows(pieces: list[Piece], limit: int, width: int) -> Rows:
    """Write rows of (prefix, actions, thought with its closing tag, target)."""
    pad = lambda line, size: [*line, *[0] * (size - len(line))]
    lines = [[*before, *thought, *target] for before, _, thought, target in pieces]
    fields = {
        "tokens": [pad(line, width) for line in lines],
        "length": [len(line) for line in lines],
        "actions": [pad(actions, limit) for _, actions, _, _ in pieces],
        "count": [len(actions) for _, actions, _, _ in pieces],
        "first_action": [len(before) for before, _, _, _ in pieces],
        "target": [target for _, _, _, target in pieces],
        "first_target": [len(before) + len(thought) for before, _, thought, _ in pieces],
    }
    return Rows(**{name: jnp.array(value, jnp.int32) for name, value in fields.items()})


@functools.partial(jax.jit, static_argnums=0)
def _scores(case: Case, params: Params, rows: Rows) -> tuple[jax.Array, jax.Array]:
    """Return log pi of actions [R, L], 0 after the last, and log p of targets [R], in nats."""
    logits = _logits(case, params, rows)
    limit, banned = case.settings.thought_length, case.vocabulary.not_in_thoughts
    cooled = _at(logits, rows.first_action, limit) / case.settings.temperature
    # A thought contains at least one word, so it cannot consist of the closing tag alone.
    *tag_start, last = case.vocabulary.think_close
    starts = jnp.all(rows.actions[:, : len(tag_start)] == jnp.array([tag_start], jnp.int32), axis=1)
    slot = jnp.arange(limit)[None, :]
    empty = starts[:, None] & (slot == len(tag_start))
    without = _log_softmax(cooled, (*banned, last))
    table = jnp.where(empty[:, :, None], without, _log_softmax(cooled, banned))
    logprobs = jnp.where(slot < rows.count[:, None], _select(table, rows.actions), 0.0)
    after = _at(logits, rows.first_target, case.settings.horizon)
    evidence = _select(_log_softmax(after, case.vocabulary.not_in_documents), rows.target)
    return logprobs, evidence.sum(axis=1)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.grad, argnums=1)
def _gradient(case: Case, params: Params, rows: Rows, advantage: jax.Array) -> jax.Array:
    """Return the gradient with respect to theta of a loss that equals the surrogate at first order:
    theta sampled the thoughts, so the ratios are 1 and nothing is clipped."""
    logprobs, _ = _scores(case, params, rows)
    return -(advantage * logprobs.sum(axis=1) / rows.count).mean()


def _logits(case: Case, params: Params, rows: Rows) -> jax.Array:
    """Return the logits of every token, [R, S, V]."""
    position = jnp.arange(rows.tokens.shape[1], dtype=jnp.int32)[None, :]
    segment = (position < rows.length[:, None]).astype(jnp.int32)
    position = jnp.broadcast_to(position, rows.tokens.shape)
    network = bind(case.model, params)
    return network.logits(forward(network, Trunk(rows.tokens, segment, position)))


def _at(logits: jax.Array, first: jax.Array, count: int) -> jax.Array:
    """Return the logits [R, count, V] that predict `count` tokens from index `first` [R]."""
    index = first[:, None] - 1 + jnp.arange(count)[None, :]
    return jnp.take_along_axis(logits, index[:, :, None], axis=1)


def _log_softmax(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    allowed = np.ones(logits.shape[-1], bool)
    allowed[list(banned)] = False
    keep = jnp.broadcast_to(jnp.asarray(allowed), logits.shape)
    return jax.nn.log_softmax(jnp.where(keep, logits, -jnp.inf), axis=-1)


def _select(table: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.take_along_axis(table, tokens[:, :, None], axis=2)[:, :, 0]
