"""The workload of the attention benchmark: sizes, where tokens stand, arrays, work. Needs no jax.

tree    the tokens of all branches meet the trunk of their document, and their own branch
trunk   with --forks 0: the tokens of the trunk meet those before them
decode  the newest token of each branch meets the trunk, and the branch so far
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from benchmarks.step import fields
from benchmarks.step.fields import flag
from rlp.runtime.errors import UserError

DTYPES = {"float32": 4, "bfloat16": 2}  # bytes of a number
FORK_PLACES = ("random", "end")
PASSES = ("forward", "backward", "whole", "decode")
# FLOPs of a visible pair, per query head and number of a head. Forward: a product for the score and
# one for the mix. Backward, by the usual convention: those of dq, dk, dv, of the score again and of
# its gradient, so 2.5 times as many, whatever an implementation computes in truth.
PAIR_FLOPS = {"forward": 4, "backward": 10, "whole": 14, "decode": 4}


@dataclasses.dataclass(frozen=True)
class AttentionSizes:
    """One field per flag.

    Raises:
      UserError: for values that make no sense, naming the flag.
    """

    docs: int = flag(2, "B: documents, one a row")
    trunk: int = flag(512, "T: tokens of a document")
    forks: int = flag(4, "K: forks per document; 0 = attention of the trunk alone", least=0)
    thoughts: int = flag(2, "G: branches of a fork")
    slots: int = flag(64, "W: slots of a branch")
    fork_places: str = flag(
        "random", "random: each uniformly in 1 to T; end: all at T", choices=FORK_PLACES
    )
    dead: float = flag(0.0, "share of the slots that are dead, on average", least=0, most=0.4)
    written: int = flag(0, "own keys that a decoding branch has; 0 = half of the slots", least=0)
    heads: int = flag(8, "query heads")
    kv_heads: int = flag(4, "key and value heads")
    head_dim: int = flag(64, "width of a head")
    dtype: str = flag("float32", "of queries, keys and values", choices=tuple(DTYPES))
    seed: int = flag(0, "of forks, dead slots and arrays", least=0)

    def __post_init__(self):
        fields.check_ranges(self)
        if self.heads % self.kv_heads:
            raise UserError(f"--heads={self.heads} is no multiple of --kv_heads={self.kv_heads}")
        if self.written > self.slots:
            raise UserError(f"--written={self.written} is more than --slots={self.slots}")

    @property
    def branches(self) -> int:
        """N: branches of a document."""
        return self.forks * self.thoughts

    @property
    def decoded(self) -> int:
        """Own keys of a decoding branch, that of the newest token included."""
        return self.written or -(-self.slots // 2)

    @functools.cached_property
    def fork(self) -> np.ndarray:
        """[B, N]: the branch sees trunk positions below this one."""
        shape = (self.docs, self.forks)
        found = np.full(shape, self.trunk)
        if self.fork_places == "random":
            found = np.random.default_rng(self.seed).integers(1, self.trunk, shape, endpoint=True)
        return np.repeat(found, self.thoughts, axis=1)

    @functools.cached_property
    def live(self) -> np.ndarray:
        """[B, N, W] bool: a thought ends early, and an eighth of the slots after it is live."""
        shape = (self.docs, self.branches, 1)
        last = self.slots - self.slots // 8
        most = round(2 * self.dead * self.slots)  # of a uniform draw, so twice the average
        dead = np.random.default_rng(self.seed + 1).integers(0, most, shape, endpoint=True)
        slot = np.arange(self.slots)
        return (slot < np.maximum(last - dead, 1)) | (slot >= last)

    def pairs(self, decode: bool) -> int:
        """Visible (query, key) pairs of all documents; heads are not counted."""
        fork = self.fork.astype(np.int64)
        if decode:
            return int((fork + self.decoded).sum())
        if not self.forks:
            return self.docs * triangle(self.trunk)
        live = self.live.sum(-1, dtype=np.int64)
        return int((fork * live + triangle(live)).sum())

    def flops(self, step: str) -> int:
        """Useful FLOPs of a pass."""
        return self.flops_of(step, self.pairs(step == "decode"))

    def flops_of(self, step: str, pairs: int) -> int:
        """FLOPs of a pass over so many visible pairs."""
        return PAIR_FLOPS[step] * pairs * self.heads * self.head_dim

    def decode_bytes(self) -> int:
        """Bytes that must move to decode one token of each branch.

        Of a document, the keys and values of the trunk before the furthest fork, once; of a branch,
        its own so far; queries and results.
        """
        tokens = self.fork.max(axis=1).sum() + self.fork.size * self.decoded
        keys = 2 * int(tokens) * self.kv_heads
        return (keys + 2 * self.fork.size * self.heads) * self.head_dim * DTYPES[self.dtype]

    def bytes(self, step: str) -> int:
        """Bytes that must move if every array is read or written once.

        Forward: queries, keys, values, results and a float32 normalizer per query and head.
        Backward: all of these again, the cotangent, and a gradient as large as each input.
        """
        if step == "decode":
            return self.decode_bytes()
        tokens = self.docs * (self.branches * self.slots if self.forks else self.trunk)
        keys = self.docs * (self.trunk + self.branches * self.slots)
        size = self.head_dim * DTYPES[self.dtype]
        queries, both = tokens * self.heads * size, 2 * keys * self.kv_heads * size
        forward = 2 * queries + both + 4 * tokens * self.heads
        backward = forward + 2 * queries + both
        return {"forward": forward, "backward": backward, "whole": forward + backward}[step]

    def causal_length(self) -> int:
        """Length of a causal trunk with as many visible pairs, to the nearest 128."""
        if not self.forks:
            return self.trunk
        length = (2 * self.pairs(decode=False) / self.docs) ** 0.5
        return max(128, 128 * round(length / 128))


def triangle(length: Any) -> Any:
    """Visible pairs of so many tokens under a causal mask."""
    return length * (length + 1) // 2


@dataclasses.dataclass(frozen=True)
class Places:
    """The four integers of tokens (`models.attention.Coordinates`), int32 arrays of one shape."""

    segment: np.ndarray
    branch: np.ndarray
    position: np.ndarray
    fork: np.ndarray


def trunk_places(sizes: AttentionSizes) -> Places:
    """Of the trunk, [B, T]."""
    shape = (sizes.docs, sizes.trunk)
    return _places(shape, True, 0, np.arange(sizes.trunk), 0)


def branch_places(sizes: AttentionSizes, decode: bool) -> Places:
    """Of the slots of the branches, [B, N, W]; while decoding, those not yet written are dead."""
    slot = np.arange(sizes.slots)
    live = np.broadcast_to(slot < sizes.decoded, sizes.live.shape) if decode else sizes.live
    fork = sizes.fork[:, :, None]
    number = np.arange(1, sizes.branches + 1)[:, None]
    return _places(live.shape, live, number, fork + np.maximum(live.cumsum(-1) - 1, 0), fork)


def query_places(sizes: AttentionSizes, decode: bool) -> Places:
    """Of the queries, [B, N, Q]."""
    if not sizes.forks:
        return Places(**{name: x[:, None] for name, x in vars(trunk_places(sizes)).items()})
    own = branch_places(sizes, decode)
    if not decode:
        return own
    newest = slice(sizes.decoded - 1, sizes.decoded)
    return Places(**{name: x[:, :, newest] for name, x in vars(own).items()})


def _places(shape: tuple, live: object, branch: object, position: object, fork: object) -> Places:
    whole = lambda x: np.ascontiguousarray(np.broadcast_to(x, shape).astype(np.int32))
    return Places(whole(live), whole(branch), whole(position), whole(fork))


Arrays = dict[str, np.ndarray]


@functools.lru_cache(4)
def arrays(sizes: AttentionSizes, decode: bool) -> Arrays:
    """Float32 arrays as `models.attention.attention` takes them, for all to read.

    Returns:
      query [B, N, Q, heads, head_dim], key and value [B, kv_heads, T, head_dim], own_key and
      own_value [B, kv_heads, N, W, head_dim] unless there are no branches, and `slope`, a cotangent
      of the result; dead queries have none.
    """
    at = query_places(sizes, decode)
    head = sizes.head_dim
    query = (*at.segment.shape, sizes.heads, head)
    shapes = {"query": query, "slope": query}
    shapes |= dict.fromkeys(("key", "value"), (sizes.docs, sizes.kv_heads, sizes.trunk, head))
    if sizes.forks:
        own = (sizes.docs, sizes.kv_heads, sizes.branches, sizes.slots, head)
        shapes |= dict.fromkeys(("own_key", "own_value"), own)
    random = np.random.default_rng(sizes.seed + 2)
    found = {
        name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    found["slope"] *= (at.segment > 0)[..., None, None]
    return found


def packed(found: Arrays) -> Arrays:
    """The same as one row of trunk and branches for each document.

    Returns:
      query and slope [B, N·Q, heads, head_dim], key and value [B, T + N·W, kv_heads, head_dim].
    """
    queries = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])
    tokens_first = lambda x: x.reshape(*x.shape[:2], -1, x.shape[-1]).swapaxes(1, 2)

    def keys(name: str) -> np.ndarray:
        every = [found[n] for n in (name, f"own_{name}") if n in found]
        return np.concatenate([tokens_first(x) for x in every], axis=1)

    row = {name: queries(found[name]) for name in ("query", "slope")}
    return row | {name: keys(name) for name in ("key", "value")}


def packed_places(sizes: AttentionSizes, decode: bool) -> tuple[Places, Places]:
    """Of the queries [B, N·Q] and of the keys [B, T + N·W] of `packed`."""
    row = lambda at: {name: x.reshape(sizes.docs, -1) for name, x in vars(at).items()}
    queries, keys = row(query_places(sizes, decode)), row(trunk_places(sizes))
    if sizes.forks:
        own = row(branch_places(sizes, decode))
        keys = {name: np.concatenate([x, own[name]], axis=1) for name, x in keys.items()}
    return Places(**queries), Places(**keys)


def causal(sizes: AttentionSizes) -> AttentionSizes:
    """A causal trunk at equal useful FLOPs."""
    return dataclasses.replace(sizes, forks=0, trunk=sizes.causal_length())
