"""RLP with the prefix repeated for every thought: what the shared computation must equal.

    x_0 … x_{t-1}  <think>  c_1 … c_n  </think>  x_t … x_{t+H-1}

Every branch is a row of its own, an ordinary document to the network, with the logits of all its
tokens. Nothing here knows of trunks that branches share, of slots or of caches of keys. Thoughts
are given, not sampled.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.step.product import Case
from models.transformer import Params, bind
from models.tree import Trunk, forward

Thoughts = list[list[list[list[int]]]]  # [docs][K][G], actions with a sampled closing tag


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one step computes, by whichever way."""

    reasoned: np.ndarray  # [docs, K, G] nats, S_pred
    baseline: np.ndarray  # [docs, K] nats, S_ema
    logprobs: np.ndarray  # [docs, K, G, L] nats; 0 after the last action
    gradient: Params  # of the loss, by theta


@flax.struct.dataclass
class Rows:
    """R rows, written out."""

    tokens: jax.Array  # [R, S] int32; 0 after the end
    length: jax.Array  # [R]
    actions: jax.Array  # [R, L]; 0 after the last
    count: jax.Array  # [R], actions
    first_action: jax.Array  # [R], its place in the row
    target: jax.Array  # [R, H]
    first_target: jax.Array  # [R]


def figures(
    case: Case,
    params: Params,
    baseline: Params,
    documents: list[list[int]],
    forks: list[int],
    thoughts: Thoughts,
) -> Figures:
    """Everything from whole rows, one group of thoughts after the other.

    Args:
      case: network, settings and vocabulary.
      params: theta; also the parameters that sampled the thoughts.
      baseline: phi.
      documents: token ids.
      forks: places in every document.
      thoughts: of every fork of every document.
    """
    tags = len(case.vocabulary.think_open) + len(case.vocabulary.think_close)
    width = max(forks) + case.settings.thought_length + case.settings.horizon + tags
    found: dict[str, list] = {"reasoned": [], "baseline": [], "logprobs": []}
    gradient = jax.tree.map(jnp.zeros_like, params)
    for document, groups in zip(documents, thoughts, strict=True):
        for fork, group in zip(forks, groups, strict=True):
            rows = write_rows(case, document, fork, group, width)
            logprobs, reasoned = _scores(case, params, rows)
            without = _scores(case, baseline, write_plain(case, document, fork, width))[1][0]
            # Every thought counts, closed or not, and the baseline of a group cancels.
            reward = np.asarray(reasoned, np.float64) - float(without)
            others = (reward.sum() - reward) / (len(group) - 1)
            advantage = (reward - others).astype(np.float32)
            gradient = jax.tree.map(jnp.add, gradient, _gradient(case, params, rows, advantage))
            found["reasoned"].append(reasoned)
            found["baseline"].append(without)
            found["logprobs"].append(logprobs)
    shape = (len(documents), len(forks))
    arrays = {name: np.stack(rows) for name, rows in found.items()}
    groups_done = len(found["reasoned"])
    return Figures(
        **{name: x.reshape(*shape, *x.shape[1:]) for name, x in arrays.items()},
        gradient=jax.tree.map(lambda x: x / groups_done, gradient),
    )


def write_rows(
    case: Case, document: list[int], fork: int, group: list[list[int]], width: int
) -> Rows:
    """The branches of one fork as rows of `width` tokens."""
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
    """One row without tags and thought, whose target follows the prefix."""
    target = document[fork : fork + case.settings.horizon]
    return _rows([(document[:fork], [], [], target)], case.settings.thought_length, width)


Piece = tuple[list[int], list[int], list[int], list[int]]


def _rows(pieces: list[Piece], limit: int, width: int) -> Rows:
    """Rows of (what is given, actions, thought with its closing tag, target)."""
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
    """log pi of the actions [R, L], 0 after the last, and log p of the targets [R]. Nats."""
    logits = _logits(case, params, rows)
    limit, banned = case.settings.thought_length, case.vocabulary.not_in_thoughts
    cooled = _at(logits, rows.first_action, limit) / case.settings.temperature
    # A thought has at least one word, so the tag cannot be all of it.
    *begin, last = case.vocabulary.think_close
    begun = jnp.all(rows.actions[:, : len(begin)] == jnp.array([begin], jnp.int32), axis=1)
    slot = jnp.arange(limit)[None, :]
    empty = begun[:, None] & (slot == len(begin))
    without = _log_softmax(cooled, (*banned, last))
    table = jnp.where(empty[:, :, None], without, _log_softmax(cooled, banned))
    logprobs = jnp.where(slot < rows.count[:, None], _chosen(table, rows.actions), 0.0)
    after = _at(logits, rows.first_target, case.settings.horizon)
    evidence = _chosen(_log_softmax(after, case.vocabulary.not_in_documents), rows.target)
    return logprobs, evidence.sum(axis=1)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.grad, argnums=1)
def _gradient(case: Case, params: Params, rows: Rows, advantage: jax.Array) -> jax.Array:
    """By theta, of a loss that is the surrogate's at first order: where theta is the policy that
    sampled, its ratios are 1 and nothing is clipped."""
    logprobs, _ = _scores(case, params, rows)
    return -(advantage * logprobs.sum(axis=1) / rows.count).mean()


def _logits(case: Case, params: Params, rows: Rows) -> jax.Array:
    """Logits of every token, [R, S, V]."""
    place = jnp.arange(rows.tokens.shape[1], dtype=jnp.int32)[None, :]
    inside = (place < rows.length[:, None]).astype(jnp.int32)
    place = jnp.broadcast_to(place, rows.tokens.shape)
    network = bind(case.model, params)
    return network.logits(forward(network, Trunk(rows.tokens, inside, place)))


def _at(logits: jax.Array, first: jax.Array, count: int) -> jax.Array:
    """The logits that predict `count` tokens from place `first` [R] on, [R, count, V]."""
    place = first[:, None] - 1 + jnp.arange(count)[None, :]
    return jnp.take_along_axis(logits, place[:, :, None], axis=1)


def _log_softmax(logits: jax.Array, banned: tuple[int, ...]) -> jax.Array:
    allowed = np.ones(logits.shape[-1], bool)
    allowed[list(banned)] = False
    keep = jnp.broadcast_to(jnp.asarray(allowed), logits.shape)
    return jax.nn.log_softmax(jnp.where(keep, logits, -jnp.inf), axis=-1)


def _chosen(table: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.take_along_axis(table, tokens[:, :, None], axis=2)[:, :, 0]
