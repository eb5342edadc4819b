"""The rollout: G thoughts at every fork, decoded against one trunk cache per document.

read_documents   the trunk once per document, and its cache
roll_out         the opening tag but its last token at once, then one token per branch and
                 step, until every thought has closed or has L actions
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models.cache import Cache
from models.transformer import Transformer
from models.tree import Branches, Trunk, prefill
from rlp.engine.branches import Forks, Thoughts, Vocabulary, lay_out
from rlp.engine.decoding import decode


@flax.struct.dataclass
class Documents:
    """Documents that the policy has read, ready to be thought about."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    cache: Cache
    hidden: jax.Array  # [B, P + T, D], final hidden states


@flax.struct.dataclass
class Rollout:
    """The thoughts of some forks, and the computation that they left behind."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    branches: Branches  # [B, N, W], see rlp/engine/branches.py
    branch_cache: Cache  # slots 0 … O + L - 2, those that predict actions
    thoughts: Thoughts  # [B, N, L]
    target: jax.Array  # [B, N, H] int32, the text that follows
    decoded: jax.Array  # int32, tokens decoded: branches that were run, times steps

    def without_cache(self) -> "Rollout":
        """What the update needs: the cache is large, and only the evidence reads it."""
        gone: Any = None
        return dataclasses.replace(self, branch_cache=gone)


def read_documents(model: Transformer, trunk: Trunk) -> Documents:
    """Prefills rows of one document each, [B, P + T], with the thinking prompt behind their bos."""
    hidden, cache = prefill(model, trunk)
    return Documents(trunk=trunk, cache=cache, hidden=hidden)


def roll_out(
    model: Transformer,
    documents: Documents,
    forks: Forks,
    uniforms: jax.Array,
    *,
    prompt_length: int,
    temperature: float,
    vocabulary: Vocabulary,
) -> Rollout:
    """Samples G thoughts at each fork.

    Args:
      model: the behaviour policy theta_old, which read the documents.
      documents: [B, P + T].
      forks: [B, K] with targets [B, K, H].
      uniforms: [B, N, L] from `thought_uniforms`; N = K · G, L the most actions of a thought.
      prompt_length: P.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.
    """
    count, limit = uniforms.shape[1:]
    group = count // forks.position.shape[1]
    fork = jnp.repeat(forks.position + prompt_length, group, axis=1)  # [B, N]
    target = jnp.repeat(forks.target, group, axis=1)  # [B, N, H]
    segment = jnp.ones_like(fork)

    thoughts, cache, decoded = decode(
        model, documents.trunk, documents.cache, fork, segment, uniforms, temperature, vocabulary
    )
    return Rollout(
        trunk=documents.trunk,
        branches=lay_out(thoughts, target, fork, segment, vocabulary),
        branch_cache=cache,
        thoughts=thoughts,
        target=target,
        decoded=decoded,
    )
