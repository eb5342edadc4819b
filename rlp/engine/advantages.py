"""What thoughts are worth: from how a network predicts targets to rewards, advantages and weights.

    outcome     what an objective may look at, in groups     Outcome
    judge       rewards, which thoughts count, advantages    the objective, and `rlp.unclosed`

Training and the reports of held-out thoughts both come here.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlp.data.batch import Array
from rlp.engine.branches import Thoughts
from rlp.engine.scoring import Scores
from rlp.objectives import equations
from rlp.objectives.record import Objective, Outcome

LONGEST = 64  # bytes of a token that are compared; a longer token matches itself alone
NOISE_STREAM, PLACE_STREAM = 2**31 - 1, 2**31 - 2  # beside the numbers of thoughts, which are small


@flax.struct.dataclass
class TokenBytes:
    """The bytes of all V tokens."""

    text: Array  # [V, M] uint8, zeros behind the end
    length: Array  # [V] int32; 0 for a token that stands for no text, or a longer one than M


def token_table(texts: Sequence[bytes], rows: int) -> TokenBytes:
    """The table of tokens 0, 1, … of an embedding with `rows` rows."""
    kept = [text if len(text) <= LONGEST else b"" for text in texts]
    kept += [b""] * (rows - len(kept))
    table = np.zeros((rows, max(1, *map(len, kept))), np.uint8)
    for row, text in zip(table, kept, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return TokenBytes(table, np.array(list(map(len, kept)), np.int32))


def matches(predicted: jax.Array, target: jax.Array, table: TokenBytes) -> jax.Array:
    """Whether a predicted token is what follows, byte for byte, up to the end of one of its tokens.

    RPT's rule (arXiv 2506.08007) for a prediction of one token: text can be cut into tokens in
    several ways, and another first token than the document's own is right if its bytes are those of
    the document's first one, two, … tokens.

    Args:
      predicted: [...] ids.
      target: [..., H] ids, the tokens that follow; of as many axes, and one.
      table: bytes of the tokens.
    """
    table = jax.tree.map(jnp.asarray, table)
    most = table.text.shape[1]
    place = jnp.arange(most).reshape((1,) * predicted.ndim + (most,))
    ends = jnp.cumsum(table.length[target], axis=-1)  # [..., H]
    known = jnp.cumprod(table.length[target] > 0, axis=-1) > 0
    token = (ends[..., None, :] <= place[..., None]).sum(axis=-1)  # [..., M], whose byte
    token = jnp.minimum(token, target.shape[-1] - 1)
    begin = jnp.take_along_axis(ends - table.length[target], token, axis=-1)
    inside = jnp.clip(place - begin, 0, most - 1)
    text = table.text[jnp.take_along_axis(target, token, axis=-1), inside]
    length = table.length[predicted][..., None]
    same = (text == table.text[predicted]) | (place >= length)
    whole = ((ends == length) & known & (length > 0)).any(axis=-1)
    return (predicted == target[..., 0]) | (same.all(axis=-1) & whole)


def noise(keys: jax.Array, first: jax.Array | int, forks: int, group: int) -> jax.Array:
    """One number in [0, 1) per document, fork from `first` on and thought, [B, forks, group]; none
    of them is one of the draws that the thought is sampled with."""

    def one(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(jax.random.fold_in(key, NOISE_STREAM))

    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    return over(keys, first + jnp.arange(forks), jnp.arange(group))


def other_places(
    keys: jax.Array, fork: jax.Array, length: jax.Array, min_prefix: int, horizon: int
) -> jax.Array:
    """For every fork another place of its document where a fork could stand, uniform, [B, K].

    Args:
      keys: one PRNG key a document, [B].
      fork: [B, K].
      length: tokens of each document, [B]; where it has no other place, that one is returned.
      min_prefix: first place allowed.
      horizon: H.
    """
    count = (length - horizon - min_prefix + 1)[:, None]  # places allowed

    def draw(key, number, others):
        key = jax.random.fold_in(jax.random.fold_in(key, number), PLACE_STREAM)
        return jax.random.randint(key, (), 0, others)

    over = jax.vmap(jax.vmap(draw, (None, 0, None)), (0, None, 0))
    drawn = over(keys, jnp.arange(fork.shape[1]), jnp.maximum(count[:, 0] - 1, 1))
    place = min_prefix + drawn
    return jnp.where(count > 1, place + (place >= fork), fork)


def outcome(
    scores: Scores,
    without: jax.Array,
    thoughts: Thoughts,
    uniform: jax.Array,
    weights: jax.Array,
    *,
    target: jax.Array,
    table: TokenBytes | None = None,
    elsewhere: jax.Array | None = None,
    in_another: jax.Array | None = None,
) -> Outcome:
    """What an objective may look at.

    Args:
      scores: of the target after the thoughts, [B, K, G, H] each.
      without: log-probability of the target without a thought, [B, K, H] nats.
      thoughts: of all branches, [B, N, …].
      uniform: [B, K, G] from `noise`.
      weights: of the horizon, [H].
      target: [B, K, H] ids.
      table: for `Outcome.matches`.
      elsewhere: log-probability of a target of another place, [B, K, G, H] nats.
      in_another: log-probability of the target of another document there, [B, K, G, H] nats.
    """
    grouped = lambda x: x.reshape(uniform.shape)
    return Outcome(
        reasoned=equations.evidence(scores.logprob, weights),
        baseline=equations.evidence(without, weights),
        logprobs=scores.logprob,
        baseline_logprobs=without,
        matches=None
        if table is None
        else matches(scores.likeliest[..., 0], target[:, :, None, :], table),
        elsewhere=None if elsewhere is None else equations.evidence(elsewhere, weights),
        in_another=None if in_another is None else equations.evidence(in_another, weights),
        closed=grouped(thoughts.closed),
        length=grouped(thoughts.length),
        uniform=uniform,
        limit=thoughts.actions.shape[-1],
    )


@flax.struct.dataclass
class Judgement:
    """What the thoughts of groups are worth, [B, K, G] each."""

    rewards: jax.Array
    counted: jax.Array  # bool: in the group's mean and in the loss
    advantages: jax.Array
    target_weights: jax.Array | None  # of the target's log-likelihood; None where it is not learnt


def judge(
    objective: Objective,
    found: Outcome,
    *,
    unclosed: str,
    unclosed_penalty: float,
    advantages: str = "",
) -> Judgement:
    """Rewards, advantages and weights of an outcome.

    Args:
      objective: whose reward it is.
      found: the outcome.
      unclosed, unclosed_penalty: `rlp.unclosed` and `rlp.unclosed_penalty`.
      advantages: a name of `equations.ADVANTAGES` in place of the objective's own; "" is its own.
    """
    compare = equations.ADVANTAGES[advantages] if advantages else objective.advantages
    rewards = equations.rewards(objective.reward(found), found.closed, unclosed, unclosed_penalty)
    counted = equations.counted_thoughts(found.closed, unclosed)
    weights = objective.target_weights
    constant = jax.lax.stop_gradient
    return Judgement(
        rewards=rewards,
        counted=counted,
        advantages=constant(compare(rewards, counted)),
        target_weights=None if weights is None else constant(weights(found, counted)),
    )
