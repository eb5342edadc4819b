"""The reference of the KL term: log-probabilities of the sampled actions under pi_ref.

A batch of documents at a time is prefilled; a batch of their branches at a time is scored on that
cache, all slots in one pass. Batches are as large as `rlp.max_branches_in_flight` allows. Nothing
carries a gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models.transformer import Transformer
from models.tree import extend, prefill
from rlp.engine.branches import Vocabulary
from rlp.engine.microbatching import largest_batch, split, unsplit
from rlp.engine.rollout import Rollout
from rlp.engine.scoring import action_scores


def reference_logprobs(
    model: Transformer,
    rollout: Rollout,
    vocabulary: Vocabulary,
    temperature: float,
    min_words: int,
    *,
    max_branches: int = 0,
    shards: int = 1,
) -> jax.Array:
    """Return log pi_ref of every action of a rollout, [B, N, L] nats; 0 after the last action.

    Args:
      model: the reference.
      rollout: its trunk, branches and thoughts are read, its cache is not.
      vocabulary: tags and banned ids.
      temperature, min_words: of the sampler; the temperature is above 0.
      max_branches: at most this number of branches per batch, over all devices; 0 for all.
      shards: devices that split the documents.
    """
    thoughts, slots = rollout.thoughts, len(vocabulary.think_open) - 1
    documents, number, limit = thoughts.actions.shape
    acting = (rollout.branches.slots(0, slots + limit), thoughts.actions)
    rows, columns = largest_batch(
        documents, number, 1, max_branches, shards, "rlp.max_branches_in_flight"
    )

    def read(inputs: tuple) -> jax.Array:
        trunk, acting = inputs
        _, cache = prefill(model, trunk)

        def score(inputs: tuple) -> jax.Array:
            branches, actions = inputs
            hidden, _ = extend(model, trunk, cache, branches)
            scores = action_scores(model, hidden, actions, vocabulary, temperature, min_words)
            return scores.logprob

        return _mapped(score, acting, number // columns, axis=1)

    logprobs = _mapped(read, (rollout.trunk, acting), documents // rows, axis=0)
    live = jnp.arange(limit)[None, None, :] < thoughts.length[..., None]
    return jnp.where(live, logprobs, 0.0)


def _mapped(run: Callable[[Any], jax.Array], whole: Any, count: int, axis: int) -> jax.Array:
    """Apply `run` to each of `count` parts of some arrays, split and joined along `axis`."""
    if count == 1:
        return run(whole)
    parts = jax.tree.map(lambda x: split(x, count, axis), whole)
    return unsplit(jax.lax.map(run, parts), axis)
