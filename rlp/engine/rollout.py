"""The rollout: sample G thoughts at every fork, with one trunk cache per document.

`read_documents` prefills each document once. `roll_out` extends its cache by all but the last token
of the opening tag in one pass, then decodes one token per branch and step until every thought has
closed or is as long as it may be.
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
    """Documents that the policy has prefilled."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    cache: Cache
    hidden: jax.Array  # [B, P + T, D], final hidden states


@flax.struct.dataclass
class Rollout:
    """The thoughts of some forks, with the branches and caches that scoring continues from."""

    trunk: Trunk  # [B, P + T], thinking prompt included
    branches: Branches  # [B, N, W], see rlp/engine/branches.py
    branch_cache: Cache  # slots 0 … O + L - 2, which predict actions
    thoughts: Thoughts  # [B, N, L]
    target: jax.Array  # [B, N, H] int32, the text after the fork; 0 after its end
    present: jax.Array  # [B, N, H] bool: target tokens that the document has
    decoded: jax.Array  # int32, decoded tokens: rows of all decoding steps, also of closed thoughts

    def without_cache(self) -> "Rollout":
        """Return the rollout as the update reads it: only the evidence needs the large cache."""
        gone: Any = None
        return dataclasses.replace(self, branch_cache=gone)


def read_documents(model: Transformer, trunk: Trunk) -> Documents:
    """Prefill single-document rows, [B, P + T], with the thinking prompt after BOS."""
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
    min_words: int,
    limit: jax.Array | int,
) -> Rollout:
    """Sample G thoughts at each fork (arXiv 2510.01265, Algorithm 1).

    Args:
      model: the behavior policy theta_old, which prefilled the documents.
      documents: [B, P + T].
      forks: [B, K], with targets of H tokens.
      uniforms: [B, N, L] in [0, 1), from `thought_uniforms`; N = K · G.
      prompt_length: P.
      temperature: of the sampler; 0 takes the likeliest token and ignores `uniforms`.
      vocabulary: tags and banned ids.
      min_words: minimum number of words of a thought, the actions before its closing tag.
      limit: maximum number of actions, at most L.

    Returns:
      Thoughts [B, N, L], their branches [B, N, W] and the branches' cache.
    """
    group = uniforms.shape[1] // forks.position.shape[1]
    fork = jnp.repeat(forks.position + prompt_length, group, axis=1)  # [B, N]
    target = jnp.repeat(forks.target, group, axis=1)  # [B, N, H]
    segment = jnp.ones_like(fork)

    thoughts, cache, decoded = decode(
        model,
        documents.trunk,
        documents.cache,
        fork,
        segment,
        uniforms,
        temperature,
        vocabulary,
        min_words,
        limit,
    )
    return Rollout(
        trunk=documents.trunk,
        branches=lay_out(thoughts, target, fork, segment, vocabulary),
        branch_cache=cache,
        thoughts=thoughts,
        target=target,
        present=jnp.repeat(forks.present, group, axis=1),
        decoded=decoded,
    )
