"""Work lists: the pairs of query and key blocks that attention has to visit, computed on device.

Most pairs of blocks are empty: a branch sees no other branch, and of its trunk only the tokens
before its fork. A `RangeMask` gives for each query the keys that it sees, as a segment id (as in
splash attention) and a range of positions. `block_pairs` reduces the mask to pairs of blocks, and
`by_queries` and `by_keys` turn those into a `Worklist`, sorted by the block whose result a pair
adds to. A TPU kernel uses the list as its grid, a GPU kernel as the bounds of its loops.

The mask is data: shapes are static and contents are not, so forks may change in every step without
recompilation. Dead slots and padding have segment 0, so they never put a block on the list.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

FULL, PARTIAL = 0, 1  # a pair of blocks in which every query sees every key, or only some do
KINDS = 2


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["q_segment", "low", "high", "kv_segment", "kv_position"],
    meta_fields=["groups"],
)
@dataclasses.dataclass(frozen=True)
class RangeMask:
    """Which of the S keys of a source R queries see, as ranges of positions.

    Query r sees key s if both have the same segment id, which is above 0, and
    low[r] <= kv_position[s] <= high[r].

    Keys of one segment should be contiguous, sorted by position and without gaps; keys of segment 0
    may be anywhere. The result is correct for any order, but other orders visit more blocks.

    Attributes:
      q_segment: [B, R] int32; a query of segment 0 sees no key.
      low: [B, R] int32, first position that a query sees.
      high: [B, R] int32, last position that a query sees; if below `low`, it sees no key.
      kv_segment: [B, S] int32; a key of segment 0 (padding, a dead slot) is masked.
      kv_position: [B, S] int32.
      groups: number of equal runs into which queries and keys are divided; a query sees only keys
        of the run with its index. 1 gives no such guarantee.
    """

    q_segment: jax.Array
    low: jax.Array
    high: jax.Array
    kv_segment: jax.Array
    kv_position: jax.Array
    groups: int

    @property
    def queries(self) -> int:
        """Number of queries, R."""
        return self.low.shape[1]

    @property
    def keys(self) -> int:
        """Number of keys, S."""
        return self.kv_segment.shape[1]


@dataclasses.dataclass(frozen=True)
class BlockPairs:
    """Candidate pairs of a query block and a key block, and which of them are visible.

    Attributes:
      visible: [B, pairs] bool: at least one query sees at least one key.
      full: [B, pairs] bool: every query sees every key.
      q_block: [pairs] int, query block of a pair; the same for all rows of the batch.
      kv_block: [pairs] int, key block of a pair; the same for all rows of the batch.
      q_blocks: query blocks of a row.
      kv_blocks: key blocks of a row.
    """

    visible: jax.Array
    full: jax.Array
    q_block: np.ndarray
    kv_block: np.ndarray
    q_blocks: int
    kv_blocks: int


def block_pairs(mask: RangeMask, block_q: int, block_kv: int) -> BlockPairs:
    """Reduce a mask to pairs of blocks.

    If the keys are in the order that `RangeMask` describes, `visible` is exact; otherwise it may
    contain additional pairs, but misses none.

    Args:
      mask: over R queries and S keys.
      block_q: queries of a block.
      block_kv: keys of a block.
    """
    q_blocks = math.ceil(mask.queries / block_q)
    kv_blocks = math.ceil(mask.keys / block_kv)
    first, last = _candidate_range(mask, block_q, block_kv)
    candidates = first[:, None] + np.arange((last - first).max() + 1)  # [query blocks, width]
    inside = candidates <= last[:, None]

    def of_queries(x: jax.Array) -> jax.Array:  # [B, query blocks, block_q, 1]
        return _blocks(x, block_q)[..., None]

    def of_keys(x: jax.Array) -> jax.Array:  # [B, query blocks, 1, width]
        return x[:, np.minimum(candidates, kv_blocks - 1)][:, :, None]

    # The keys of a block, in order, run from (min_segment, begin) to (max_segment, end).
    kv_segment, position = (_blocks(x, block_kv) for x in (mask.kv_segment, mask.kv_position))
    int_max = jnp.iinfo(jnp.int32).max
    min_segment = jnp.where(kv_segment > 0, kv_segment, int_max).min(-1)
    max_segment = kv_segment.max(-1)
    is_in = lambda segment: kv_segment == segment[..., None]
    begin = jnp.where(is_in(min_segment), position, int_max).min(-1)
    end = jnp.where(is_in(max_segment), position, -1).max(-1)
    all_live = (kv_segment > 0).all(-1)

    q_segment, low, high = of_queries(mask.q_segment), of_queries(mask.low), of_queries(mask.high)
    min_segment, begin = of_keys(min_segment), of_keys(begin)
    max_segment, end = of_keys(max_segment), of_keys(end)
    not_after = (q_segment < max_segment) | (q_segment == max_segment) & (low <= end)
    not_before = (q_segment > min_segment) | (q_segment == min_segment) & (high >= begin)
    sees_any = (q_segment > 0) & (low <= high)
    visible = (sees_any & not_after & not_before).any(2)
    one_segment = (q_segment == min_segment) & (q_segment == max_segment)
    covered = one_segment & (low <= begin) & (high >= end)
    full = covered.all(2) & of_keys(all_live)[:, :, 0]

    q_block, _ = np.nonzero(inside)
    return BlockPairs(
        visible=visible[:, inside],
        full=full[:, inside],
        q_block=q_block,
        kv_block=candidates[inside],
        q_blocks=q_blocks,
        kv_blocks=kv_blocks,
    )


def count_candidates(mask: RangeMask, block_q: int, block_kv: int) -> int:
    """Return the number of candidate pairs of blocks in a row; only `mask.groups` excludes any."""
    first, last = _candidate_range(mask, block_q, block_kv)
    return int((last - first + 1).sum())


def _candidate_range(mask: RangeMask, block_q: int, block_kv: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last key block that each query block could see, from the groups alone."""
    q_blocks = math.ceil(mask.queries / block_q)
    queries, keys = mask.queries // mask.groups, mask.keys // mask.groups
    start = np.arange(q_blocks) * block_q
    stop = np.minimum(start + block_q, mask.queries)
    return start // queries * keys // block_kv, (-(-stop // queries) * keys - 1) // block_kv


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """Reshape [B, n] to [B, blocks, block]; the last block is padded with zeros."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block)))
    return x.reshape(x.shape[0], -1, block)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["target", "other", "kind", "starts", "total"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Worklist:
    """The visible pairs of blocks, sorted by target block, then source, then FULL before PARTIAL.

    The target is the block whose result the pair adds to: a query block for the forward and dq
    kernels, a key block for dkv. Blocks are numbered through the batch: row · blocks of a row +
    block. The arrays have room for E entries, the number of candidate pairs, because the number of
    visible pairs is known only on the device.

    Attributes:
      target: [E] int32; -1 for unused entries at the end, of which there is at least one.
      other: [E] int32, the block on the other side: of queries, or of the keys of one source.
      kind: [E] int32, KINDS · source + (FULL or PARTIAL); -1 for a target without visible pairs,
        which is listed (see `include_empty`) so that the kernel writes its result.
      starts: [targets · KINDS · sources + 1] int32: the entries of a target and a kind are
        starts[i] … starts[i + 1] - 1 with i = target · KINDS · sources + kind. Only for lists
        without targets of kind -1.
      total: [] int32, number of entries in use.
    """

    target: jax.Array
    other: jax.Array
    kind: jax.Array
    starts: jax.Array
    total: jax.Array


def by_queries(sources: Sequence[BlockPairs], include_empty: bool) -> Worklist:
    """List the key blocks that each query block sees, one source of keys after the other.

    Args:
      sources: pairs of each source of keys, with the same query blocks.
      include_empty: also list query blocks that see no key block.
    """
    entries = [
        (_batch_index(p.q_block, p.q_blocks, p), _batch_index(p.kv_block, p.kv_blocks, p), p)
        for p in sources
    ]
    return _worklist(entries, len(sources[0].visible) * sources[0].q_blocks, include_empty)


def by_keys(source: BlockPairs, include_empty: bool) -> Worklist:
    """List the query blocks that see each key block of one source.

    Args:
      source: the pairs.
      include_empty: also list key blocks that no query block sees.
    """
    p = source
    q_blocks = _batch_index(p.q_block, p.q_blocks, p)
    kv_blocks = _batch_index(p.kv_block, p.kv_blocks, p)
    return _worklist([(kv_blocks, q_blocks, p)], len(p.visible) * p.kv_blocks, include_empty)


def _batch_index(block: np.ndarray, blocks: int, pairs: BlockPairs) -> jax.Array:
    """Number the blocks of all pairs of all rows through the batch, [B · pairs]."""
    rows = jnp.arange(len(pairs.visible), dtype=jnp.int32)[:, None]
    return (rows * blocks + jnp.asarray(block, jnp.int32)[None]).ravel()


def _worklist(
    sources: Sequence[tuple[jax.Array, jax.Array, BlockPairs]], targets: int, include_empty: bool
) -> Worklist:
    """Sort the visible entries (target, other, pairs) of all sources into one list."""
    kinds = KINDS * len(sources)
    target = jnp.concatenate([target for target, _, _ in sources])
    other = jnp.concatenate([other for _, other, _ in sources])
    visible = jnp.concatenate([p.visible.ravel() for _, _, p in sources])
    full_or_partial = [jnp.where(p.full, FULL, PARTIAL).ravel() for _, _, p in sources]
    kind = jnp.concatenate([KINDS * source + x for source, x in enumerate(full_or_partial)])
    sort_key = target * kinds + kind
    count = jnp.zeros(targets * kinds, jnp.int32).at[sort_key].add(visible.astype(jnp.int32))
    if include_empty:
        empty = count.reshape(targets, kinds).sum(1) == 0
        target = jnp.concatenate([target, jnp.arange(targets, dtype=jnp.int32)])
        other = jnp.pad(other, (0, targets))
        visible = jnp.concatenate([visible, empty])
        kind = jnp.pad(kind, (0, targets), constant_values=-1)
        sort_key = jnp.concatenate([sort_key, jnp.arange(targets, dtype=jnp.int32) * kinds])
    order = jnp.argsort(jnp.where(visible, sort_key, targets * kinds), stable=True)
    total = visible.sum(dtype=jnp.int32)
    unused = jnp.arange(len(target) + 1) >= total
    in_order = lambda x: jnp.pad(x[order], (0, 1))
    return Worklist(
        target=jnp.where(unused, -1, in_order(target)),
        other=in_order(other),
        kind=in_order(kind),
        starts=jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(count, dtype=jnp.int32)]),
        total=total,
    )
