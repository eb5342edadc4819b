"""Which blocks of queries and keys meet, found on the device from integers that change every step.

A kernel works on blocks, and most pairs of blocks have nothing to do with each other: a branch sees
no other branch, and of its trunk what lies before its fork. `Sight` says per query which keys it
sees: those of its class between two positions. `meetings` reduces that to blocks, `by_queries` and
`by_keys` make lists of it, with the pairs of one block together: the grid of a TPU kernel, the
loops of a GPU kernel. Shapes are static and contents are not, so forks may change without a
compilation.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

FULL, PARTIAL = 0, 1  # of a pair of blocks: every query sees every key, or some see some
KINDS = 2


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["query_class", "low", "high", "key_class", "key_position"],
    meta_fields=["groups"],
)
@dataclasses.dataclass(frozen=True)
class Sight:
    """What R queries see of S keys: query r sees key s if both have the same class, above 0, and
    the key's position is one of low … high.

    Keys of one class should stand together, in the order of their positions and without gaps; keys
    of class 0 may stand anywhere. In another order nothing becomes wrong, but more is visited.

    Attributes:
      query_class: [B, R] int32; a query of class 0 sees nothing.
      low: [B, R] int32.
      high: [B, R] int32; below `low`, the query sees nothing.
      key_class: [B, S] int32; a key of class 0 is seen by nobody.
      key_position: [B, S] int32.
      groups: queries and keys are so many runs of equal length, and no query sees keys of another
        run than its own. 1 says nothing.
    """

    query_class: jax.Array
    low: jax.Array
    high: jax.Array
    key_class: jax.Array
    key_position: jax.Array
    groups: int

    @property
    def queries(self) -> int:
        """R."""
        return self.low.shape[1]

    @property
    def keys(self) -> int:
        """S."""
        return self.key_class.shape[1]


@dataclasses.dataclass(frozen=True)
class Meetings:
    """Pairs of a block of queries and a block of keys that could meet, and whether they do.

    Attributes:
      seen: [B, pairs] bool: some query sees some key.
      full: [B, pairs] bool: every query sees every key.
      query_block: [pairs] int, the same for all rows of the batch, as is the next.
      key_block: [pairs] int.
      query_blocks: of a row.
      key_blocks: of a row.
    """

    seen: jax.Array
    full: jax.Array
    query_block: np.ndarray
    key_block: np.ndarray
    query_blocks: int
    key_blocks: int


def meetings(sight: Sight, query_block: int, key_block: int) -> Meetings:
    """The pairs of blocks, of so many queries and of so many keys, that meet.

    For keys in the order that `Sight` asks for, `seen` is exact; of others it misses no pair.
    """
    query_blocks = math.ceil(sight.queries / query_block)
    key_blocks = math.ceil(sight.keys / key_block)
    first, last = _offered(sight, query_block, key_block)
    offered = first[:, None] + np.arange((last - first).max() + 1)  # [query blocks, width]
    inside = offered <= last[:, None]

    def rows(x: jax.Array) -> jax.Array:  # [B, query blocks, query_block, 1]
        return _blocks(x, query_block)[..., None]

    def keys(x: jax.Array) -> jax.Array:  # [B, query blocks, 1, width]
        return x[:, np.minimum(offered, key_blocks - 1)][:, :, None]

    # Of a block, keys in the order of (class, position) run from a first to a last.
    key_class, position = (_blocks(x, key_block) for x in (sight.key_class, sight.key_position))
    far = jnp.iinfo(jnp.int32).max
    least = jnp.where(key_class > 0, key_class, far).min(-1)
    most = key_class.max(-1)
    of = lambda ends: key_class == ends[..., None]
    begin = jnp.where(of(least), position, far).min(-1)
    end = jnp.where(of(most), position, -1).max(-1)
    live = (key_class > 0).all(-1)

    row_class, low, high = rows(sight.query_class), rows(sight.low), rows(sight.high)
    least, begin, most, end = keys(least), keys(begin), keys(most), keys(end)
    not_after = (row_class < most) | (row_class == most) & (low <= end)
    not_before = (row_class > least) | (row_class == least) & (high >= begin)
    asks = (row_class > 0) & (low <= high)
    seen = (asks & not_after & not_before).any(2)
    covered = (row_class == least) & (row_class == most) & (low <= begin) & (high >= end)
    full = covered.all(2) & keys(live)[:, :, 0]

    query_number, _ = np.nonzero(inside)
    return Meetings(
        seen=seen[:, inside],
        full=full[:, inside],
        query_block=query_number,
        key_block=offered[inside],
        query_blocks=query_blocks,
        key_blocks=key_blocks,
    )


def pairs_offered(sight: Sight, query_block: int, key_block: int) -> int:
    """Pairs of blocks of a row of the batch that could meet, by their groups alone."""
    first, last = _offered(sight, query_block, key_block)
    return int((last - first + 1).sum())


def _offered(sight: Sight, query_block: int, key_block: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last block of keys that queries of each block could see, by their groups alone."""
    query_blocks = math.ceil(sight.queries / query_block)
    rows, keys = sight.queries // sight.groups, sight.keys // sight.groups
    start = np.arange(query_blocks) * query_block
    stop = np.minimum(start + query_block, sight.queries)
    return start // rows * keys // key_block, (-(-stop // rows) * keys - 1) // key_block


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """[B, n] as [B, blocks, block], the last filled up with zeros."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block)))
    return x.reshape(x.shape[0], -1, block)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["target", "other", "kind", "starts", "total"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Worklist:
    """Pairs of blocks that meet, those of one target block together and by kind.

    Blocks are counted through the batch: row of the batch · blocks of a row + block.

    Attributes:
      target: [E] int32; -1 behind those in use, of which there is at least one.
      other: [E] int32: the block on the other side, of queries or of one source's keys.
      kind: [E] int32: KINDS · source + (FULL or PARTIAL); -1 for a target that meets no block,
        which is in the list for its results to be written.
      starts: [targets · KINDS · sources + 1] int32: where pairs of a target and a kind begin in a
        list without those.
      total: [] int32: how many of the E are in use.
    """

    target: jax.Array
    other: jax.Array
    kind: jax.Array
    starts: jax.Array
    total: jax.Array


def by_queries(sources: Sequence[Meetings], idle: bool) -> Worklist:
    """The blocks of keys that each block of queries meets, of one source of keys after the other.

    Args:
      sources: with the same blocks of queries.
      idle: blocks that meet nobody are listed, too.
    """
    pairs = [
        (_numbered(m.query_block, m.query_blocks, m), _numbered(m.key_block, m.key_blocks, m), m)
        for m in sources
    ]
    return _worklist(pairs, len(sources[0].seen) * sources[0].query_blocks, idle)


def by_keys(source: Meetings, idle: bool) -> Worklist:
    """The blocks of queries that each block of one source's keys meets; `idle` as above."""
    m = source
    queries = _numbered(m.query_block, m.query_blocks, m)
    keys = _numbered(m.key_block, m.key_blocks, m)
    return _worklist([(keys, queries, m)], len(m.seen) * m.key_blocks, idle)


def _numbered(block: np.ndarray, blocks: int, m: Meetings) -> jax.Array:
    rows = jnp.arange(len(m.seen), dtype=jnp.int32)[:, None]
    return (rows * blocks + jnp.asarray(block, jnp.int32)[None]).ravel()


def _worklist(
    sources: Sequence[tuple[jax.Array, jax.Array, Meetings]], targets: int, idle: bool
) -> Worklist:
    kinds = KINDS * len(sources)
    target = jnp.concatenate([target for target, _, _ in sources])
    other = jnp.concatenate([other for _, other, _ in sources])
    seen = jnp.concatenate([m.seen.ravel() for _, _, m in sources])
    whole = [jnp.where(m.full, FULL, PARTIAL).ravel() for _, _, m in sources]
    kind = jnp.concatenate([KINDS * source + x for source, x in enumerate(whole)])
    place = target * kinds + kind
    count = jnp.zeros(targets * kinds, jnp.int32).at[place].add(seen.astype(jnp.int32))
    if idle:
        alone = count.reshape(targets, kinds).sum(1) == 0
        target = jnp.concatenate([target, jnp.arange(targets, dtype=jnp.int32)])
        other = jnp.pad(other, (0, targets))
        seen, kind = jnp.concatenate([seen, alone]), jnp.pad(kind, (0, targets), constant_values=-1)
        place = jnp.concatenate([place, jnp.arange(targets, dtype=jnp.int32) * kinds])
    order = jnp.argsort(jnp.where(seen, place, targets * kinds), stable=True)
    total = seen.sum(dtype=jnp.int32)
    unused = jnp.arange(len(target) + 1) >= total
    chosen = lambda x: jnp.pad(x[order], (0, 1))
    return Worklist(
        target=jnp.where(unused, -1, chosen(target)),
        other=chosen(other),
        kind=chosen(kind),
        starts=jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(count, dtype=jnp.int32)]),
        total=total,
    )
