"""Generate from a trained network: a continuation token by token, or thoughts after a prompt."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.cache import Cache
from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Branches, ForkPoints, Trunk, empty_branch_cache, extend, prefill
from rlp.data.batch import Batch
from rlp.engine.decoding import for_decoding
from rlp.engine.method import Method
from rlp.engine.sampling import sample
from rlp.engine.scoring import mask_logits
from rlp.evaluation.thinking import think

ROOM = 64  # prompts are padded to a multiple of 64 tokens, so that few shapes are compiled


def continuation(
    model_config: ModelConfig,
    params: Params,
    prompt: Sequence[int],
    limit: int,
    *,
    temperature: float = 0.0,
    key: jax.Array | None = None,
    banned: Sequence[int] = (),
    ends: Sequence[int] = (),
) -> Iterator[int]:
    """Sample a continuation of a prompt; yields one token id at a time.

    Args:
      model_config: config of the network.
      params: of the network.
      prompt: at least one token id.
      limit: at most this number of tokens.
      temperature: of the sampler; 0 takes the likeliest token.
      key: PRNG key of the sampling; None for that of seed 0.
      banned: ids that are not sampled.
      ends: ids that end the continuation; they are yielded, too.
    """
    read, step = _decoder(model_config, limit, tuple(banned), temperature)
    blocks, logits, trunk, cache, branches, branch_cache = read(params, padded_row(prompt))
    key = jax.random.key(0) if key is None else key
    for number in range(limit):
        token, logits, branches, branch_cache = step(
            params, blocks, trunk, cache, branches, branch_cache, logits, key, number
        )
        yield int(token)
        if int(token) in ends:
            return


@functools.cache
def _decoder(
    model_config: ModelConfig, limit: int, banned: tuple[int, ...], temperature: float
) -> tuple[Callable, Callable]:
    """Return two jitted functions: one prefills a prompt, the other decodes one token."""

    @jax.jit
    def read(params: Params, trunk: Trunk) -> tuple:
        model = bind(model_config, params)
        length = trunk.segment.sum(axis=1)
        document = jnp.ones((1, 1), jnp.int32)
        trunk = dataclasses.replace(trunk, forks=ForkPoints(length[:, None], document))
        hidden, cache = prefill(model, trunk)
        model, cache = for_decoding(model, cache)
        last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)[:, 0]
        slot = jnp.arange(limit, dtype=jnp.int32)[None, None, :]
        branches = Branches(
            tokens=jnp.zeros((1, 1, limit), jnp.int32),
            position=length[:, None, None] + slot,
            live=jnp.zeros((1, 1, limit), bool),
            segment=document,
            fork=length[:, None],
        )
        branch_cache = empty_branch_cache(model, trunk, cache, branches, limit)
        blocks = model.blocks if isinstance(model.blocks, list) else None
        return blocks, model.logits(last), trunk, cache, branches, branch_cache

    @functools.partial(jax.jit, donate_argnums=(4, 5))
    def step(
        params: Params,
        blocks: list[Any] | None,  # unrolled layers; None if those of `params` are read
        trunk: Trunk,
        cache: Cache,
        branches: Branches,
        branch_cache: Cache,
        logits: jax.Array,
        key: jax.Array,
        number: jax.Array,
    ) -> tuple:
        model = bind(model_config, params)
        if blocks is not None:
            model = dataclasses.replace(model, blocks=blocks)
        draw = jax.random.uniform(jax.random.fold_in(key, number), (1,))
        logits = mask_logits(logits, banned, temperature or 1.0)
        token = sample(logits, draw) if temperature else jnp.argmax(logits, axis=-1)
        put = lambda x, value: jax.lax.dynamic_update_slice(x, value, (0, 0, number))
        branches = dataclasses.replace(
            branches,
            tokens=put(branches.tokens, token.astype(jnp.int32)[:, None, None]),
            live=put(branches.live, jnp.ones((1, 1, 1), bool)),
        )
        hidden, branch_cache = extend(model, trunk, cache, branches, branch_cache, number, 1)
        return token[0], model.logits(hidden[:, 0, 0]), branches, branch_cache

    return read, step


def padded_row(ids: Sequence[int]) -> Trunk:
    """Return a trunk [1, T] of one text, padded to a multiple of `ROOM` tokens."""
    size = -(-len(ids) // ROOM) * ROOM
    position = np.arange(size, dtype=np.int32)[None]
    tokens = np.zeros((1, size), np.int32)
    tokens[0, : len(ids)] = ids
    segment = (position < len(ids)).astype(np.int32)
    return Trunk(jnp.asarray(tokens), jnp.asarray(segment), jnp.asarray(position))


@dataclasses.dataclass(frozen=True)
class Thought:
    """A thought after a prompt.

    Attributes:
      words: token ids, without the tags.
      closed: whether the closing tag was sampled.
      reasoned: log-likelihood of the target after the thought, nats; None without a target.
    """

    words: list[int]
    closed: bool
    reasoned: float | None


def thoughts_after(
    method: Method,
    params: Params,
    prompt: Sequence[int],
    target: Sequence[int],
    count: int,
    key: jax.Array,
) -> tuple[list[Thought], float | None]:
    """Sample thoughts after a prompt, and score a target after each of them.

    Args:
      method: its thinking prompt, temperature and thought length are used.
      params: of the network.
      prompt: at least one token id.
      target: token ids of the text after the thought; may be empty.
      count: number of thoughts.
      key: PRNG key of the sampling.

    Returns:
      The thoughts, and the log-likelihood of the target without a thought, in nats (None without a
      target).
    """
    settings = dataclasses.replace(
        method.settings,
        group_size=count,
        forks_per_document=1,
        positions="given",
        horizon=max(1, len(target)),
        max_branches_in_flight=0,
    )
    row = padded_row([*prompt, *(target or prompt[-1:])])  # scoring needs at least one token
    batch = Batch(
        tokens=row.tokens,
        segment=row.segment,
        position=row.position,
        index=np.zeros(1, np.int32),
        forks=np.array([[len(prompt)]], np.int32),
    )
    result = _thinker(Method(method.model, settings, method.vocabulary))(params, batch, key)
    sampled = result["rollout"].thoughts
    words = np.asarray(sampled.words(method.vocabulary))[0]
    reasoned = np.asarray(result["reasoned"].logprob.sum(axis=-1))[0, 0]
    thoughts = [
        Thought(
            words=np.asarray(sampled.actions)[0, n, : words[n]].tolist(),
            closed=bool(sampled.closed[0, n]),
            reasoned=float(reasoned[n]) if target else None,
        )
        for n in range(count)
    ]
    return thoughts, float(result["no_think"].logprob.sum()) if target else None


@functools.cache  # so that prompts of the same padded length share a compiled program
def _thinker(method: Method) -> Callable[[Params, Batch, jax.Array], dict]:
    return jax.jit(functools.partial(think, method))
