"""Generate from a trained network: a continuation token by token, or thoughts after a prompt."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params
from models.tree import Trunk
from rlp.data.batch import Batch
from rlp.engine.method import Method
from rlp.engine.sampling import Sampler
from rlp.evaluation.generation.text_programs import Choosing, text_programs
from rlp.evaluation.thinking import think

ROOM = 64  # prompts are padded to a multiple of 64 tokens, so that few shapes are compiled


def continuation(
    model_config: ModelConfig,
    params: Params,
    prompt: Sequence[int],
    limit: int,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    key: jax.Array | None = None,
    banned: Sequence[int] = (),
    ends: Sequence[int] = (),
) -> Iterator[int]:
    """Sample a continuation of a prompt; yields one token id at a time.

    Args:
      model_config: config of the network.
      params: of the network, on one device.
      prompt: at least one token id.
      limit: at most this number of tokens.
      temperature: of the sampler; 0 takes the likeliest token.
      top_k: as in `rlp.engine.sampling.truncation`; 0 keeps all tokens.
      top_p: as there; 1 keeps all tokens.
      key: PRNG key of the sampling; None for that of seed 0.
      banned: ids that are not sampled.
      ends: ids that end the continuation; they are yielded, too.
    """
    programs = text_programs(model_config, tuple(banned))
    row, length = padded_row(prompt), np.array([len(prompt)], np.int32)
    prompts = programs.read(params, row.tokens, length)
    texts, blocks = programs.begin(prompts, count=1, slots=limit), programs.unrolled(params)
    each = lambda value, dtype: jnp.full((1, 1), value, dtype)
    choosing = Choosing(
        open=each(True, bool),
        taken=each(0, jnp.int32),
        limit=each(limit, jnp.int32),
        ends=jnp.zeros((1, 1, 0), jnp.int32),  # compared below, so that ends compile nothing
        key=jax.random.key_data(jax.random.key(0) if key is None else key)[None, None],
        sampler=Sampler(
            each(temperature, jnp.float32),
            each(top_k, jnp.int32) if top_k else None,
            each(top_p, jnp.float32) if top_p < 1 else None,
        )
        if temperature
        else None,
    )
    for number in range(limit):
        texts, chosen = programs.decode(params, blocks, prompts, texts, choosing, number, steps=1)
        choosing = dataclasses.replace(choosing, taken=chosen.taken)
        token = int(chosen.tokens[0, 0, 0])
        yield token
        if token in ends:
            return


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
