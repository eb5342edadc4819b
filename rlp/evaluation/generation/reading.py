"""Reading prompts: what all of them begin with is read once."""

import itertools
import os
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from models import cache as caches
from models.cache import Cache
from models.sharding import constrain
from models.transformer import Transformer
from models.tree import Branches, Trunk, extend, prefill

LEAST_SHARED = 64  # tokens
SHORTEST = 32  # tokens of a row; longer rows have 2^k or 3 · 2^k tokens, so that few are compiled


@flax.struct.dataclass
class Prompts:
    """Prompts that have been read.

    Attributes:
      trunk: the prompts, [B, T].
      cache: of the trunk.
      hidden: [B, D], final hidden state of the last token of each.
    """

    trunk: Trunk
    cache: Cache
    hidden: jax.Array


def power_above(count: int) -> int:
    """Return the smallest power of two from `count` on; `count` is 1 or more."""
    return 1 << (count - 1).bit_length()


def padded(length: int) -> int:
    """Return the tokens of a row for a prompt: 2^k or 3 · 2^k, and a multiple of `SHORTEST`."""
    power = power_above(length)
    size = power * 3 // 4 if length <= power * 3 // 4 else power
    return -(-size // SHORTEST) * SHORTEST


def prompt_arrays(prompts: Sequence[tuple[int, ...]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of prompts, int32 [B, size], and their lengths, int32 [B]."""
    tokens = np.zeros((len(prompts), size), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, np.array(list(map(len, prompts)), np.int32)


def read_together(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many of the first prompts are read together: those in which each begins like the
    one before it, for at least half of its tokens, or those before the next ones that do.

    Args:
      prompts: token ids, at least one; those that begin alike follow one another.
    """
    alike = [
        len(os.path.commonprefix([a, b])) >= max(LEAST_SHARED, len(b) / 2)
        for a, b in itertools.pairwise(prompts)
    ]
    if not alike:
        return 1
    count = next((i for i, same in enumerate(alike) if same != alike[0]), len(alike))
    return count + 1 if alike[0] or count == len(alike) else count


def shared_tokens(prompts: Sequence[tuple[int, ...]], shards: int) -> int:
    """Return how many tokens of prompts are read once; 0 if that would save nothing.

    At least one token of each prompt is not among them.

    Args:
      prompts: token ids, at least one each.
      shards: devices that split the prompts, each of which reads the shared tokens.
    """
    if len(prompts) <= shards:
        return 0
    common = len(os.path.commonprefix(list(prompts)))
    common = min(common, min(map(len, prompts)) - 1)
    unit = max(LEAST_SHARED, (1 << common.bit_length()) // 16)  # so that few programs are compiled
    return common // unit * unit


def read(
    model: Transformer, tokens: jax.Array, length: jax.Array, shared: int, shards: int
) -> Prompts:
    """Prefill prompts.

    Args:
      model: the network.
      tokens: [B, T] int32.
      length: [B], tokens of each prompt, at least 1.
      shared: number of tokens that all prompts begin with, less than each length; it needs
        `models.cache.can_join`. 0 reads every prompt as a whole.
      shards: devices that split the rows.
    """
    tokens, length = (constrain(x, "rows") for x in (tokens, length))
    trunk, end = Trunk.of_documents(tokens, length), length - 1
    if shared:
        hidden, cache = _read_branches(model, tokens, length, shared, shards)
        end = end - shared
    else:
        hidden, cache = prefill(model, trunk)
    last = jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0]
    return Prompts(trunk, cache, constrain(last, "rows"))


def _read_branches(
    model: Transformer, tokens: jax.Array, length: jax.Array, shared: int, shards: int
) -> tuple[jax.Array, Cache]:
    """Read the rests of prompts as branches of one row on every device, the shared tokens.

    Returns:
      The final hidden states of the rests, [B, T - shared, D], and the cache of the prompts.
    """
    by_row = lambda x: constrain(x.reshape(shards, -1, *x.shape[1:]), "rows")
    prefix = jnp.full(shards, shared, jnp.int32)
    trunk = Trunk.of_documents(by_row(tokens)[:, 0, :shared], prefix)
    branches = Branches.after(prefix, by_row(tokens[:, shared:]), by_row(length - shared))
    _, trunk_cache = prefill(model, trunk)
    slots = branches.tokens.shape[-1]
    room = caches.begin(model.config, trunk, trunk_cache, branches, slots)
    hidden, cache = extend(model, trunk, trunk_cache, branches, room, 0, slots)
    whole = caches.joined(model.config, trunk_cache, cache)
    return hidden.reshape(-1, slots, hidden.shape[-1]), whole
