"""The workload of the attention benchmark: sizes, coordinates, arrays, work. Does not import jax.

tree    the tokens of all branches attend to the trunk of their document and to their branch
trunk   with --forks 0: causal attention of the trunk
decode  the newest token of each branch attends to the trunk and to the branch so far
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from benchmarks import fields
from benchmarks.fields import flag
from rlp.runtime.errors import UserError

DTYPES = {"float32": 4, "bfloat16": 2}  # bytes of an element
FORK_PLACES = ("random", "end")
PASSES = ("forward", "backward", "whole", "decode")
# FLOPs of a visible pair, per query head and element of a head. Forward: the products of the score
# and of the weighted value. Backward, by the usual convention: those of dq, dk, dv, the recomputed
# score and its gradient, or 2.5 times as many, whatever an implementation actually computes.
PAIR_FLOPS = {"forward": 4, "backward": 10, "whole": 14, "decode": 4}


@dataclasses.dataclass(frozen=True)
class AttentionSizes:
    """Sizes of the workload; each field is a flag.

    Raises:
      UserError: If a value is invalid; the message names the flag.
    """

    docs: int = flag(2, "B: documents, one per row")
    trunk: int = flag(512, "T: tokens of a document")
    forks: int = flag(4, "K: forks per document; 0 = attention of the trunk alone", least=0)
    thoughts: int = flag(2, "G: branches of a fork")
    slots: int = flag(64, "W: slots of a branch")
    fork_places: str = flag(
        "random", "random: uniform in 1 to T; end: all at T", choices=FORK_PLACES
    )
    dead: float = flag(0.0, "average share of dead slots", least=0, most=0.4)
    written: int = flag(0, "keys of a decoding branch; 0 = half of the slots", least=0)
    heads: int = flag(8, "query heads")
    kv_heads: int = flag(4, "key and value heads")
    head_dim: int = flag(64, "width of a head")
    dtype: str = flag("float32", "dtype of queries, keys and values", choices=tuple(DTYPES))
    seed: int = flag(0, "seed of forks, dead slots and arrays", least=0)

    def __post_init__(self):
        fields.check_ranges(self)
        if self.heads % self.kv_heads:
            raise UserError(
                f"--heads={self.heads} is not a multiple of --kv_heads={self.kv_heads}; change one"
            )
        if self.written > self.slots:
            raise UserError(
                f"--written={self.written} is more than --slots={self.slots}; lower --written"
            )

    @property
    def branches(self) -> int:
        """N, branches of a document."""
        return self.forks * self.thoughts

    @property
    def decoded(self) -> int:
        """Keys of a decoding branch, that of the newest token included."""
        return self.written or -(-self.slots // 2)

    @functools.cached_property
    def fork(self) -> np.ndarray:
        """Forks [B, N]: a branch sees trunk positions below its fork."""
        shape = (self.docs, self.forks)
        fork = np.full(shape, self.trunk)
        if self.fork_places == "random":
            fork = np.random.default_rng(self.seed).integers(1, self.trunk, shape, endpoint=True)
        return np.repeat(fork, self.thoughts, axis=1)

    @functools.cached_property
    def live(self) -> np.ndarray:
        """Live slots, bool [B, N, W]: thoughts end early; the last eighth of the slots is live."""
        shape = (self.docs, self.branches, 1)
        last = self.slots - self.slots // 8
        most = round(2 * self.dead * self.slots)  # maximum of a uniform draw: twice the average
        dead = np.random.default_rng(self.seed + 1).integers(0, most, shape, endpoint=True)
        slot = np.arange(self.slots)
        return (slot < np.maximum(last - dead, 1)) | (slot >= last)

    def pairs(self, decode: bool) -> int:
        """Return the visible (query, key) pairs of all documents, for one head."""
        fork = self.fork.astype(np.int64)
        if decode:
            return int((fork + self.decoded).sum())
        if not self.forks:
            return self.docs * triangle(self.trunk)
        live = self.live.sum(-1, dtype=np.int64)
        return int((fork * live + triangle(live)).sum())

    def flops(self, step: str) -> int:
        """Return the useful FLOPs of a pass."""
        return self.flops_of(step, self.pairs(step == "decode"))

    def flops_of(self, step: str, pairs: int) -> int:
        """Return the FLOPs of a pass over `pairs` visible pairs."""
        return PAIR_FLOPS[step] * pairs * self.heads * self.head_dim

    def decode_bytes(self) -> int:
        """Return the bytes that must move to decode one token of each branch.

        They are the keys and values of each document's trunk before its last fork, read once, those
        of each branch so far, the queries and the outputs.
        """
        tokens = self.fork.max(axis=1).sum() + self.fork.size * self.decoded
        keys = 2 * int(tokens) * self.kv_heads
        return (keys + 2 * self.fork.size * self.heads) * self.head_dim * DTYPES[self.dtype]

    def bytes(self, step: str) -> int:
        """Return the bytes that must move if every array is read or written once.

        Forward: queries, keys, values, outputs and a float32 log-sum-exp per query and head.
        Backward: all of these again, the cotangent, and the gradient of each input.
        """
        if step == "decode":
            return self.decode_bytes()
        tokens = self.docs * (self.branches * self.slots if self.forks else self.trunk)
        keys = self.docs * (self.trunk + self.branches * self.slots)
        size = self.head_dim * DTYPES[self.dtype]
        queries, kv = tokens * self.heads * size, 2 * keys * self.kv_heads * size
        forward = 2 * queries + kv + 4 * tokens * self.heads
        backward = forward + 2 * queries + kv
        return {"forward": forward, "backward": backward, "whole": forward + backward}[step]

    def causal_length(self) -> int:
        """Return the length of a causal trunk with as many visible pairs, to the nearest 128."""
        if not self.forks:
            return self.trunk
        length = (2 * self.pairs(decode=False) / self.docs) ** 0.5
        return max(128, 128 * round(length / 128))


def triangle(length: Any) -> Any:
    """Return the visible pairs of `length` tokens under a causal mask."""
    return length * (length + 1) // 2


@dataclasses.dataclass(frozen=True)
class NumpyCoordinates:
    """The fields of `models.mask.Coordinates`, as int32 numpy arrays of one shape."""

    segment: np.ndarray
    branch: np.ndarray
    position: np.ndarray
    fork: np.ndarray


def trunk_coordinates(sizes: AttentionSizes) -> NumpyCoordinates:
    """Return the coordinates of the trunk, [B, T]."""
    shape = (sizes.docs, sizes.trunk)
    return _coordinates(shape, True, 0, np.arange(sizes.trunk), 0)


def branch_coordinates(sizes: AttentionSizes, decode: bool) -> NumpyCoordinates:
    """Return the coordinates of the slots of branches, [B, N, W].

    While decoding, slots that are not written yet are dead.
    """
    slot = np.arange(sizes.slots)
    live = np.broadcast_to(slot < sizes.decoded, sizes.live.shape) if decode else sizes.live
    fork = sizes.fork[:, :, None]
    number = np.arange(1, sizes.branches + 1)[:, None]
    return _coordinates(live.shape, live, number, fork + np.maximum(live.cumsum(-1) - 1, 0), fork)


def query_coordinates(sizes: AttentionSizes, decode: bool) -> NumpyCoordinates:
    """Return the coordinates of the queries, [B, N, Q]."""
    if not sizes.forks:
        return NumpyCoordinates(
            **{name: x[:, None] for name, x in vars(trunk_coordinates(sizes)).items()}
        )
    branch = branch_coordinates(sizes, decode)
    if not decode:
        return branch
    newest = slice(sizes.decoded - 1, sizes.decoded)
    return NumpyCoordinates(**{name: x[:, :, newest] for name, x in vars(branch).items()})


def _coordinates(
    shape: tuple, live: object, branch: object, position: object, fork: object
) -> NumpyCoordinates:
    whole = lambda x: np.ascontiguousarray(np.broadcast_to(x, shape).astype(np.int32))
    return NumpyCoordinates(whole(live), whole(branch), whole(position), whole(fork))


Arrays = dict[str, np.ndarray]


@functools.lru_cache(4)
def arrays(sizes: AttentionSizes, decode: bool) -> Arrays:
    """Draw float32 arrays as `models.attention.attention` takes them; cached, so read-only.

    Returns:
      query [B, N, Q, heads, head_dim], key and value [B, kv_heads, T, head_dim], own_key and
      own_value [B, kv_heads, N, W, head_dim] if there are branches, and a cotangent of the output,
      which is zero for dead queries.
    """
    at = query_coordinates(sizes, decode)
    head = sizes.head_dim
    query = (*at.segment.shape, sizes.heads, head)
    shapes = {"query": query, "cotangent": query}
    shapes |= dict.fromkeys(("key", "value"), (sizes.docs, sizes.kv_heads, sizes.trunk, head))
    if sizes.forks:
        branch = (sizes.docs, sizes.kv_heads, sizes.branches, sizes.slots, head)
        shapes |= dict.fromkeys(("own_key", "own_value"), branch)
    random = np.random.default_rng(sizes.seed + 2)
    drawn = {
        name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    drawn["cotangent"] *= (at.segment > 0)[..., None, None]
    return drawn


def packed(unpacked: Arrays) -> Arrays:
    """Pack trunk and branches of each document into one row.

    Returns:
      query and cotangent [B, N·Q, heads, head_dim], key and value [B, T + N·W, kv_heads, head_dim].
    """
    queries = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])
    tokens_first = lambda x: x.reshape(*x.shape[:2], -1, x.shape[-1]).swapaxes(1, 2)

    def keys(name: str) -> np.ndarray:
        sources = [unpacked[n] for n in (name, f"own_{name}") if n in unpacked]
        return np.concatenate([tokens_first(x) for x in sources], axis=1)

    row = {name: queries(unpacked[name]) for name in ("query", "cotangent")}
    return row | {name: keys(name) for name in ("key", "value")}


def packed_coordinates(
    sizes: AttentionSizes, decode: bool
) -> tuple[NumpyCoordinates, NumpyCoordinates]:
    """Return the coordinates of the queries [B, N·Q] and keys [B, T + N·W] of `packed`."""
    row = lambda at: {name: x.reshape(sizes.docs, -1) for name, x in vars(at).items()}
    queries, keys = row(query_coordinates(sizes, decode)), row(trunk_coordinates(sizes))
    if sizes.forks:
        branch = row(branch_coordinates(sizes, decode))
        keys = {name: np.concatenate([x, branch[name]], axis=1) for name, x in keys.items()}
    return NumpyCoordinates(**queries), NumpyCoordinates(**keys)


def causal(sizes: AttentionSizes) -> AttentionSizes:
    """Return the workload of a causal trunk with equal useful FLOPs."""
    return dataclasses.replace(sizes, forks=0, trunk=sizes.causal_length())
