"""The rollout: G thoughts at every fork, decoded against one trunk cache per document.

    prefill      the trunk once per document
    decode       one token per branch and step, until every thought has closed or has L actions
    lay_out      the branches with their targets, ready for evidence and update

Every random number belongs to (step, document, fork, thought), so a thought is the same however
documents are grouped into batches or spread over a mesh.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.transformer import Transformer
from models.tree import Branches, Cache, Trunk, empty_branch_cache, extend, prefill
from rlp.branches import Forks, Thoughts, Vocabulary, empty_branches, lay_out
from rlp.data.batch import Array
from rlp.scoring import mask_logits

BLOCK = 128  # tokens whose probabilities are summed first, in two-level sampling
FORK_STREAM = 2**31 - 1  # beside the fork numbers, which are small


@flax.struct.dataclass
class Rollout:
    """The thoughts of every fork, and the computation that they left behind."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    trunk_cache: Cache
    branches: Branches  # [B, N, L + H + 1]
    branch_cache: Cache  # slots 0 … L - 1 are filled
    thoughts: Thoughts  # [B, N, L]
    hidden: jax.Array  # [B, P + T, D], final hidden states of the trunk
    decode_steps: jax.Array  # int32; below L when all thoughts closed early

    def without_caches(self) -> "Rollout":
        """What the update needs: the rest is only read by the evidence, and its memory is large."""
        gone: Any = None
        return dataclasses.replace(self, trunk_cache=gone, branch_cache=gone, hidden=gone)


def document_keys(key: jax.Array, step: jax.Array | int, index: Array) -> jax.Array:
    """One PRNG key per document of a step: fold_in(fold_in(root, step), document)."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(index))


def fork_keys(keys: jax.Array) -> jax.Array:
    """The key that chooses each document's forks."""
    return jax.vmap(lambda key: jax.random.fold_in(key, FORK_STREAM))(keys)


def thought_uniforms(keys: jax.Array, forks: int, group: int, length: int) -> jax.Array:
    """One uniform number in [0, 1) per document, fork, thought and action: [B, K·G, L]."""

    def thought(key, fork, member):
        key = jax.random.fold_in(jax.random.fold_in(key, fork), member)
        return jax.random.uniform(key, (length,))

    over = jax.vmap(thought, (None, None, 0))
    over = jax.vmap(jax.vmap(over, (None, 0, None)), (0, None, None))
    return over(keys, jnp.arange(forks), jnp.arange(group)).reshape(-1, forks * group, length)


def sample(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse-CDF sample of each row: logits [M, V], uniform [M] in [0, 1); int32 [M].

    In two levels: a block of tokens by the blocks' sums, then a token of that block. One number per
    row instead of noise per token, and sums short enough for float32. Never picks probability 0.
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    below = 1 - jnp.finfo(jnp.float32).eps  # keeps a draw strictly under the total it is held to

    def pick(weights, draw):
        mass = jnp.cumsum(weights, axis=-1)
        draw = jnp.minimum(draw, mass[:, -1] * below)[:, None]
        choice = jnp.sum(mass <= draw, axis=-1)
        before = jnp.max(jnp.where(mass <= draw, mass, 0), axis=-1)
        return choice, draw[:, 0] - before

    sums = weights.sum(axis=-1)
    block, rest = pick(sums, uniform * sums.sum(axis=-1))
    inside = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    token, _ = pick(inside, jnp.maximum(rest, 0))
    return (block * BLOCK + token).astype(jnp.int32)


def roll_out(
    model: Transformer,
    trunk: Trunk,
    forks: Forks,
    uniforms: jax.Array,
    *,
    prompt_length: int,
    temperature: float,
    vocabulary: Vocabulary,
) -> Rollout:
    """Prefills the documents and samples G thoughts at each of their forks.

    Args:
      model: the behaviour policy theta_old.
      trunk: rows of one document each, [B, P + T], with the thinking prompt in front.
      forks: [B, K] with targets [B, K, H].
      uniforms: [B, N, L] from `thought_uniforms`; N = K · G, L the most actions of a thought.
      prompt_length: P.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.
    """
    batch, count, limit = uniforms.shape
    group = count // forks.position.shape[1]
    fork = jnp.repeat(forks.position + prompt_length, group, axis=1)  # [B, N]
    target = jnp.repeat(forks.target, group, axis=1)  # [B, N, H]
    segment = jnp.ones_like(fork)
    slots = limit + target.shape[-1] + 1

    hidden, trunk_cache = prefill(model, trunk)
    thoughts, cache, steps = _decode(
        model,
        trunk,
        trunk_cache,
        empty_branches(fork, segment, slots, vocabulary),
        uniforms,
        temperature,
        vocabulary,
    )
    return Rollout(
        trunk=trunk,
        trunk_cache=trunk_cache,
        branches=lay_out(thoughts, target, fork, segment, vocabulary),
        branch_cache=cache,
        thoughts=thoughts,
        hidden=hidden,
        decode_steps=steps,
    )


def _decode(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    uniforms: jax.Array,
    temperature: float,
    vocabulary: Vocabulary,
) -> tuple[Thoughts, Cache, jax.Array]:
    """Samples actions slot by slot; stops when no thought is open. Thoughts, cache and steps."""
    batch, count, limit = uniforms.shape
    close = vocabulary.think_close

    def step(state: tuple) -> tuple:
        slot, branches, cache, thoughts, open_ = state
        hidden, cache = extend(model, trunk, trunk_cache, branches, cache, slot, 1)
        logits = mask_logits(
            model.logits(hidden.reshape(batch * count, -1)),
            vocabulary.not_in_thoughts,
            temperature or 1.0,
            close,
            jnp.broadcast_to(slot == 0, (batch * count,)),
        )
        if temperature:
            uniform = jax.lax.dynamic_index_in_dim(uniforms, slot, axis=2, keepdims=False)
            action = sample(logits, uniform.reshape(-1))
        else:
            action = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=-1)
        action, logprob = action.reshape(batch, count), logprob.reshape(batch, count)
        closes = open_ & (action == close)
        speaks = open_ & ~closes
        put = lambda x, new, at: jax.lax.dynamic_update_index_in_dim(x, new, at, axis=2)
        thoughts = Thoughts(
            actions=put(thoughts.actions, jnp.where(open_, action, vocabulary.pad), slot),
            length=thoughts.length + open_,
            closed=thoughts.closed | closes,
            logprobs=put(thoughts.logprobs, jnp.where(open_, logprob, 0.0), slot),
        )
        branches = dataclasses.replace(
            branches,
            tokens=put(branches.tokens, jnp.where(speaks, action, vocabulary.pad), slot + 1),
            live=put(branches.live, speaks, slot + 1),
        )
        return slot + 1, branches, cache, thoughts, speaks

    start = (
        jnp.int32(0),
        branches,
        empty_branch_cache(model, batch, count, branches.tokens.shape[-1]),
        Thoughts(
            actions=jnp.full((batch, count, limit), vocabulary.pad, jnp.int32),
            length=jnp.zeros((batch, count), jnp.int32),
            closed=jnp.zeros((batch, count), bool),
            logprobs=jnp.zeros((batch, count, limit), jnp.float32),
        ),
        jnp.ones((batch, count), bool),
    )
    running = lambda state: (state[0] < limit) & jnp.any(state[-1])
    steps, _, cache, thoughts, _ = jax.lax.while_loop(running, step, start)
    return thoughts, cache, steps
