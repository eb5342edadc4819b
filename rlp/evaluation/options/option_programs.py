"""The programs that score options of questions and rows of text; to be traced by jit.

No token is banned, so that log-probabilities are those of a softmax over all rows of the embedding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.config import ModelConfig
from models.sharding import constrain, replicated
from models.transformer import Params, bind
from models.tree import Branches, Trunk, extend, forward, prefill
from rlp.data.batch import Batch
from rlp.engine.branches import lay_out
from rlp.engine.method import Method
from rlp.engine.scoring import Scores, in_chunks, reasoned_scores, token_scores
from rlp.engine.stages import sample_thoughts


@functools.cache
def compiled(program: Callable, network: ModelConfig | Method, mesh: Mesh) -> Callable[..., Any]:
    """Return a jitted program of this module, bound to its network, whose results all hosts have.

    Run it under `jax.set_mesh(mesh)`.
    """
    return jax.jit(functools.partial(program, network), out_shardings=replicated(mesh))


def score_options(
    config: ModelConfig,
    params: Params,
    context: jax.Array,
    length: jax.Array,
    options: jax.Array,
    sizes: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Score options after contexts.

    Args:
      config: of the network.
      params: of the network.
      context: [B, T] int32.
      length: [B], tokens of each context, at least 1.
      options: [B, N, H] int32.
      sizes: [B, N], tokens of each option; 0 for padding.

    Returns:
      The log-probability of every option, [B, N] nats, and whether all its tokens are the likeliest
      ones, [B, N] bool.
    """
    model, trunk = bind(config, params), Trunk.of_documents(context, length)
    last = lambda hidden: jnp.take_along_axis(hidden, length[:, None, None] - 1, axis=1)[:, None]
    if options.shape[-1] > 1:  # the last token of an option is not read
        branches = Branches.after(length, options[..., :-1], sizes - 1)
        hidden, cache = prefill(model, trunk)
        after, _ = extend(model, trunk, cache, branches)
        first = jnp.broadcast_to(last(hidden), (*sizes.shape, 1, hidden.shape[-1]))
        predicting = jnp.concatenate([first, after], axis=2)
    else:
        hidden = last(forward(model, trunk))
        predicting = jnp.broadcast_to(hidden, (*options.shape, hidden.shape[-1]))
    return _of_options(token_scores(model, predicting, options), options, sizes)


def score_branches(
    config: ModelConfig,
    params: Params,
    prefix: jax.Array,
    length: jax.Array,
    branch: jax.Array,
    size: jax.Array,
    start: jax.Array,
    options: jax.Array,
    sizes: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Score options at the ends of branches after shared tokens.

    Args:
      config: of the network.
      params: of the network.
      prefix: [B, T] int32, the shared tokens.
      length: [B], number of them, at least 1.
      branch: [B, N, S] int32, the rest of a context and all tokens of an option but the last.
      size: [B, N], tokens of each branch; 0 for padding.
      start: [B, N], how many of them belong to the context.
      options: [B, N, O, H] int32; several options of a branch have one token each.
      sizes: [B, N, O], tokens of each option; 0 for padding.

    Returns:
      The log-probability of every option, [B, N, O] nats, and whether all its tokens are the
      likeliest ones, [B, N, O] bool.
    """
    model, trunk = bind(config, params), Trunk.of_documents(prefix, length)
    branches = Branches.after(length, branch, size)
    _, cache = prefill(model, trunk)
    hidden, _ = extend(model, trunk, cache, branches)
    token = jnp.arange(options.shape[-1], dtype=jnp.int32)[None, None, :]
    place = start[..., None] - 1 + token  # [B, N, H] of what predicts each token
    place = jnp.clip(place, 0, branch.shape[-1] - 1)
    predicting = jnp.take_along_axis(hidden, place[..., None], axis=2)[:, :, None]
    predicting = jnp.broadcast_to(predicting, (*options.shape, hidden.shape[-1]))
    return _of_options(token_scores(model, predicting, options), options, sizes)


def score_rows(config: ModelConfig, params: Params, ids: jax.Array, size: jax.Array) -> jax.Array:
    """Return the log-probability of every token of rows but the first, [B, T] nats.

    Args:
      config: of the network.
      params: of the network.
      ids: [B, T + 1] int32; the last token of a row is only predicted.
      size: [B], tokens of each row.
    """
    model = bind(config, params)
    hidden = forward(model, Trunk.of_documents(ids[:, :-1], size - 1))
    return token_scores(model, hidden, ids[:, 1:]).logprob


def rank_rows(
    config: ModelConfig, params: Params, ids: jax.Array, size: jax.Array, *, top: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score every token of rows but the first, and find the likeliest tokens in its place.

    Args:
      config: of the network.
      params: of the network.
      ids: [B, T + 1] int32; the last token of a row is only predicted.
      size: [B], tokens of each row.
      top: number of the likeliest tokens, at most the rows of the embedding.

    Returns:
      The log-probability of every token, [B, T] nats; the ids of the likeliest tokens, [B, T, top]
      int32, the likeliest first; and their log-probabilities, [B, T, top] nats.
    """
    model, (rows, length) = bind(config, params), ids[:, 1:].shape
    hidden = forward(model, Trunk.of_documents(ids[:, :-1], size - 1))

    def rank(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        hidden, targets = (x.reshape(-1, *x.shape[2:]) for x in inputs)
        logits = constrain(model.logits(hidden), "rows", "vocab")
        logits -= logits.max(axis=-1, keepdims=True)
        normalizer = jnp.log(jnp.exp(logits).sum(axis=-1, keepdims=True))
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1) - normalizer
        values, tokens = jax.lax.top_k(logits, top)
        by_row = lambda x: x.reshape(rows, -1, *x.shape[1:])
        return by_row(chosen[:, 0]), by_row(tokens), by_row(values - normalizer)

    chunks = in_chunks(config.vocab_size, (hidden, ids[:, 1:]))
    whole = lambda x: x.swapaxes(0, 1).reshape(rows, -1, *x.shape[3:])[:, :length]
    return jax.tree.map(whole, jax.lax.map(rank, chunks))


@functools.cache  # so that `compiled` has one program for each number
def ranking(top: int) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """Return `rank_rows` for a number of the likeliest tokens."""
    return functools.partial(rank_rows, top=top)


def score_after_thoughts(
    method: Method,
    params: Params,
    context: jax.Array,
    length: jax.Array,
    options: jax.Array,
    sizes: jax.Array,
    index: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """Sample G thoughts after contexts, and score options after each of them.

    The arguments that are not described here are those of `score_options`.

    Args:
      method: its settings have one fork per document, at the given position.
      index: [B] int32, seeds the thoughts of each context.
      key: PRNG key.

    Returns:
      Actions of the thoughts, [B, G, L] int32; the number of words of each and whether it closed,
      [B, G]; the log-probability of every option after it, [B, N, G] nats, and whether all tokens
      of the option are the likeliest ones, [B, N, G] bool.
    """
    trunk, words = Trunk.of_documents(context, length), method.vocabulary
    batch = Batch(context, trunk.segment, trunk.position, index, length[:, None])
    forked, rollout = sample_thoughts(method.model, method.settings, words, params, batch, key)
    model, documents = bind(method.model, params), forked.documents
    free = dataclasses.replace(words, not_in_documents=())
    over_thoughts = lambda x: jnp.broadcast_to(x, (*rollout.branches.fork.shape, *x.shape[2:]))

    def score(option: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        target, size = (over_thoughts(x[:, None]) for x in option)
        branches, thoughts = rollout.branches, rollout.thoughts
        branches = lay_out(thoughts, target, branches.fork, branches.segment, words)
        caches = (documents.trunk, documents.cache, branches, rollout.branch_cache)
        return _of_options(reasoned_scores(model, *caches, target, free), target, size)

    each = (options.swapaxes(0, 1), sizes.swapaxes(0, 1))
    logprob, greedy = (x.swapaxes(0, 1) for x in jax.lax.map(score, each))
    thoughts = rollout.thoughts
    return thoughts.actions, thoughts.words(words), thoughts.closed, logprob, greedy


def _of_options(
    scores: Scores, options: jax.Array, sizes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum the scores of the tokens of options, [..., H]; the first `sizes` [...] count."""
    counted = (
        jax.lax.broadcasted_iota(jnp.int32, options.shape, options.ndim - 1) < sizes[..., None]
    )
    logprob = jnp.where(counted, scores.logprob, 0.0).sum(axis=-1)
    return logprob, (~counted | (scores.likeliest == options)).all(axis=-1)
