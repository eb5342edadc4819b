"""A naive reference implementation of RLP: every branch is a separate row with the whole prefix.

    x_0  prompt  x_1 … x_{t-1}  <think>  c_1 … c_n  </think>  x_t … x_{t+H-1}

Each row is an ordinary document to the model: this module has no trunks, forks, slots or caches. It
builds rows, rewards and advantages in plain Python loops that can be compared with the paper line
by line. The results of the packed implementation must equal these.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Trunk, forward
from rlp.engine.branches import Vocabulary
from tests.support import tiny


@dataclasses.dataclass
class Branch:
    """A thought at a position of a document."""

    document: list[int]
    fork: int
    actions: list[int]  # the sampled ids, including the closing tag if it was sampled
    horizon: int


@flax.struct.dataclass
class Rows:
    """R branches as rows."""

    tokens: jax.Array  # [R, S]
    length: jax.Array  # [R], tokens of the row; the rest is padding
    action: jax.Array  # [R, L], ids; 0 after the last
    action_at: jax.Array  # [R, L], index of each action in the row; 0 after the last
    early: jax.Array  # [R, L] bool, whether a closing tag that ends here would end a thought early
    target: jax.Array  # [R, H]
    target_at: jax.Array  # [R, H]


def write_out(
    branches: list[Branch],
    vocabulary: Vocabulary,
    limit: int,
    width: int,
    prompt=(),
    least: int = 1,
) -> Rows:
    """Write branches as rows of `width` tokens; thoughts have at most `limit` actions, of which at
    least `least` precede the closing tag.

    A document begins with its BOS, and the prompt follows the BOS.
    """
    rows, close = [], list(vocabulary.think_close)
    for branch in branches:
        bos, *seen = branch.document[: branch.fork]
        prefix = [bos, *prompt, *seen, *vocabulary.think_open]
        closed = branch.actions[-len(close) :] == close
        thought = branch.actions if closed else [*branch.actions, *close]
        target = branch.document[branch.fork : branch.fork + branch.horizon]
        line = [*prefix, *thought, *target]
        action_at = [len(prefix) + u for u in range(len(branch.actions))]
        rows.append(
            {
                "tokens": _pad(line, width),
                "length": len(line),
                "action": _pad(branch.actions, limit),
                "action_at": _pad(action_at, limit),
                "early": [
                    _ends_early([*branch.actions[:u], close[-1]], close, least)
                    for u in range(limit)
                ],
                "target": target,
                "target_at": [len(prefix) + len(thought) + h for h in range(branch.horizon)],
            }
        )
    return Rows(**{name: np.array([row[name] for row in rows], np.int32) for name in rows[0]})


def _ends_early(actions: list[int], close: list[int], least: int) -> bool:
    """Return whether actions end with the closing tag after fewer than `least` others."""
    return actions[-len(close) :] == close and len(actions) < least + len(close)


def _pad(line: list[int], width: int) -> list[int]:
    assert len(line) <= width
    return [*line, *[0] * (width - len(line))]


def logits(config: ModelConfig, params: Params, tokens: jax.Array, length: jax.Array) -> jax.Array:
    """Return the logits [R, S, V] of plain documents."""
    at = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
    inside = (at < jnp.asarray(length)[:, None]).astype(jnp.int32)
    model = bind(config, params)
    return model.logits(forward(model, Trunk(jnp.asarray(tokens), inside, at)))


def distribution(
    logits: jax.Array, banned: tuple[int, ...], temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Return log-probabilities [..., V] at a temperature, without the banned ids."""
    allowed = np.ones(logits.shape[-1], bool)
    allowed[list(banned)] = False
    keep = jnp.broadcast_to(jnp.asarray(allowed), logits.shape)
    return jax.nn.log_softmax(jnp.where(keep, logits / temperature, -jnp.inf), axis=-1)


def _predicted(table: jax.Array, token: jax.Array, at: jax.Array) -> jax.Array:
    """Return the log-probability of `token` at index `at`: table [R, S, V], token and at [R, M]."""
    return table[jnp.arange(table.shape[0])[:, None], jnp.asarray(at) - 1, jnp.asarray(token)]


@functools.partial(tiny.jit, static_argnames=("config", "banned"))
def predictions(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    *,
    config: ModelConfig,
    banned: tuple[int, ...],
) -> jax.Array:
    """Return log p(· | the tokens up to each index) of plain documents, [R, S, V] nats."""
    return distribution(logits(config, params, tokens, length), banned)


def traced_action_logprobs(
    params: Params,
    rows: Rows,
    config: ModelConfig,
    vocabulary: Vocabulary,
    temperature: float | jax.Array,
) -> jax.Array:
    """Return log pi of every action, [R, L] nats; 0 after the last."""
    everything = logits(config, params, rows.tokens, rows.length)
    banned = vocabulary.not_in_thoughts
    either = _predicted(distribution(everything, banned, temperature), rows.action, rows.action_at)
    banned = (*banned, vocabulary.think_close[-1])  # a thought has at least so many tokens
    unclosed = distribution(everything, banned, temperature)
    unclosed = _predicted(unclosed, rows.action, rows.action_at)
    chosen = jnp.where(jnp.asarray(rows.early) > 0, unclosed, either)
    return jnp.where(jnp.asarray(rows.action_at) > 0, chosen, 0.0)


action_logprobs = tiny.jit(traced_action_logprobs, static_argnames=("config", "vocabulary"))


@functools.partial(tiny.jit, static_argnames=("config", "vocabulary"))
def target_logprobs(
    params: Params, rows: Rows, *, config: ModelConfig, vocabulary: Vocabulary
) -> jax.Array:
    """Return log p of every target token after its thought, [R, H] nats."""
    everything = logits(config, params, rows.tokens, rows.length)
    table = distribution(everything, vocabulary.not_in_documents)
    return _predicted(table, rows.target, rows.target_at)


@functools.partial(tiny.jit, static_argnames=("config", "vocabulary"))
def document_logprobs(
    params: Params, tokens: jax.Array, *, config: ModelConfig, vocabulary: Vocabulary
) -> jax.Array:
    """Return log p of all tokens but the first of plain documents [R, S], [R, S - 1] nats."""
    rows, size = tokens.shape
    everything = logits(config, params, tokens, jnp.full((rows,), size))
    table = distribution(everything, vocabulary.not_in_documents)
    at = jnp.broadcast_to(jnp.arange(1, size)[None, :], (rows, size - 1))
    return _predicted(table, tokens[:, 1:], at)


def rewards(
    reasoned: np.ndarray,
    baseline: np.ndarray,
    closed: np.ndarray,
    weights: list[float],
    penalty: float,
) -> list[float]:
    """Return r of every branch: the weighted log-likelihood with the thought minus without it.

    Args:
      reasoned: log p of the target with the thought, [R, H] nats.
      baseline: log p of the target without a thought, [R, H] nats.
      closed: Whether the thought is closed, [R].
      weights: Weights of the target tokens, [H].
      penalty: Subtracted for an unclosed thought, nats.
    """
    result = []
    for with_thought, without, is_closed in zip(reasoned, baseline, closed, strict=True):
        pairs = zip(weights, with_thought, without, strict=True)
        gain = sum(w * (float(a) - float(b)) for w, a, b in pairs)
        result.append(gain if is_closed else gain - penalty)
    return result


def leave_one_out(rewards: list[float], counted: list[bool]) -> list[float]:
    """Return each counted reward of a group minus the mean of the other counted ones; else 0."""
    advantages = []
    for i, reward in enumerate(rewards):
        others = [r for j, r in enumerate(rewards) if j != i and counted[j]]
        advantages.append(reward - sum(others) / len(others) if counted[i] and others else 0.0)
    return advantages


@functools.partial(tiny.jit, static_argnames=("config", "vocabulary"))
@jax.value_and_grad
def target_term(
    params: Params,
    rows: Rows,
    weights: jax.Array,
    horizon: jax.Array,
    *,
    config: ModelConfig,
    vocabulary: Vocabulary,
) -> jax.Array:
    """Return minus the mean over thoughts of w log p(target | thought), and its gradient.

    Args:
      weights: w, [R].
      horizon: Weights of the target tokens, [H].
    """
    everything = logits(config, params, rows.tokens, rows.length)
    table = distribution(everything, vocabulary.not_in_documents)
    logprob = _predicted(table, rows.target, rows.target_at)
    return -(weights * (logprob @ horizon)).mean()


@functools.partial(tiny.jit, static_argnames=("config", "vocabulary"))
@jax.value_and_grad
def kl_term(
    params: Params,
    rows: Rows,
    reference: jax.Array,
    counted: jax.Array,
    divisor: jax.Array,
    *,
    config: ModelConfig,
    vocabulary: Vocabulary,
    temperature: float,
) -> jax.Array:
    """Return the KL term and its gradient.

    The term is the mean over thoughts of 1/|c| sum_u (x - ln x - 1) with x = pi_ref / pi.

    Args:
      reference: log pi_ref, [R, L] nats.
      counted: Whether a thought counts, [R].
      divisor: |c| or its replacement, [R].
    """
    logprob = traced_action_logprobs(params, rows, config, vocabulary, temperature)
    ratio = jnp.exp(reference) / jnp.exp(logprob)
    acted = jnp.asarray(rows.action_at) > 0
    per_thought = jnp.where(acted, ratio - jnp.log(ratio) - 1, 0.0).sum(axis=1) / divisor
    return jnp.where(counted, per_thought, 0.0).mean()


@functools.partial(tiny.jit, static_argnames=("config", "vocabulary"))
@jax.value_and_grad
def surrogate(
    params: Params,
    rows: Rows,
    behavior: jax.Array,
    advantages: jax.Array,
    counted: jax.Array,
    divisor: jax.Array,
    *,
    config: ModelConfig,
    vocabulary: Vocabulary,
    temperature: float,
    clip: tuple[float, float, float],
    sequence: bool | jax.Array,
) -> jax.Array:
    """Return the surrogate loss (Eq. 5) and its gradient.

    The loss is minus the mean over thoughts of 1/|c| sum_u min(rho A, clip(rho) A).

    Args:
      behavior: log pi of the sampling policy, [R, L] nats.
      advantages, counted: [R].
      divisor: |c| or its replacement, [R].
      clip: epsilon_l, epsilon_h, and c of the dual clip or 0.
      sequence: Whether rho is the geometric mean over the actions of a thought.
    """
    logprob = traced_action_logprobs(params, rows, config, vocabulary, temperature)
    acted = jnp.asarray(rows.action_at) > 0
    difference = jnp.where(acted, logprob - behavior, 0.0)
    mean = difference.sum(axis=1) / acted.sum(axis=1)
    difference = jnp.where(sequence, mean[:, None], difference)
    rho, a = jnp.exp(difference), advantages[:, None]
    value = jnp.minimum(rho * a, jnp.clip(rho, 1 - clip[0], 1 + clip[1]) * a)
    bounded = (a < 0) & (clip[2] > 0)
    value = jnp.where(bounded, jnp.maximum(value, clip[2] * a), value)
    per_thought = jnp.where(acted, value, 0.0).sum(axis=1) / divisor
    return -jnp.where(counted, per_thought, 0.0).mean()
