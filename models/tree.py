"""Forward passes over trunks (documents) and branches (thoughts), and their caches.

    forward    packed rows of documents, no cache          next-token loss, baseline evidence
    prefill    the same, returning the trunk's cache       start of a rollout and of an update
    extend     some slots of all branches on the caches    decoding, evidence; with all slots at
                                                           once and no branch cache, the update
    forward_together                                       the update, if it is not split and layers
                                                           are scanned: both in one pass

A trunk is computed once per document, and its cache is never copied per branch. All passes are
differentiable in the parameters and in the caches that they read (except for `extend` on a branch
cache if kernels compute attention), and give the same hidden states for the same tokens, up to
rounding. The gradient through `extend` flows into the trunk's cache, so one backward pass of
`prefill` serves all branches. The kinds of layers define what is cached and how branches start from
it (`models.layers`).
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from models import cache as caches
from models.cache import Cache
from models.depth import Pass
from models.layers.protocol import LayerCache, LayerKind, Rows, Slots
from models.layers.registry import kind_counts
from models.mask import Coordinates
from models.transformer import Transformer


@flax.struct.dataclass
class ForkPoints:
    """The points where branches leave rows of documents: a branch sees the tokens before its fork.

    A layer with a recurrent state caches it at these points, in the order of K.
    """

    position: jax.Array  # [B, K] int32, position in the document of the first token not seen
    segment: jax.Array  # [B, K] int32, number of the document in its row


@flax.struct.dataclass
class Trunk:
    """Rows of packed documents."""

    tokens: jax.Array  # [B, T] int32
    segment: jax.Array  # [B, T] int32, number of the document in its row; 0 is padding
    position: jax.Array  # [B, T] int32, tokens from the start of the document
    forks: ForkPoints | None = None  # where branches will leave; None if there are none

    @classmethod
    def of_documents(cls, tokens: jax.Array, length: jax.Array) -> "Trunk":
        """Return rows [B, T] of one document with `length` [B] tokens and a fork at its end."""
        place = jnp.broadcast_to(
            jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape
        )
        segment = (place < length[:, None]).astype(jnp.int32)
        return cls(
            tokens, segment, place, ForkPoints(length[:, None], jnp.ones_like(length)[:, None])
        )

    @property
    def at(self) -> Coordinates:
        """Coordinates of the tokens, [B, T]."""
        return Coordinates.of_trunk(self.segment, self.position)


@flax.struct.dataclass
class Branches:
    """N branches of every row with W slots for tokens each; slots that are not live are masked."""

    tokens: jax.Array  # [B, N, W] int32
    position: jax.Array  # [B, N, W] int32; the first token of a branch has its fork's position
    live: jax.Array  # [B, N, W] bool
    segment: jax.Array  # [B, N] int32, number of the document that the branch leaves
    fork: jax.Array  # [B, N] int32; the branch sees trunk positions below this one

    @classmethod
    def after(cls, length: jax.Array, tokens: jax.Array, size: jax.Array) -> "Branches":
        """Return branches that continue documents of `Trunk.of_documents`, of `length` [B] tokens,
        by the first `size` [B, N] of `tokens` [B, N, W]."""
        slot = jnp.arange(tokens.shape[-1], dtype=jnp.int32)[None, None, :]
        fork = jnp.broadcast_to(length[:, None], size.shape)
        live = slot < size[..., None]
        return cls(tokens, fork[..., None] + slot, live, jnp.ones_like(fork), fork)

    @property
    def at(self) -> Coordinates:
        """Coordinates of the slots, [B, N, W]; dead ones have segment 0."""
        shape = self.tokens.shape
        spread = lambda x: jnp.broadcast_to(x[:, :, None], shape)
        number = jnp.arange(1, shape[1] + 1, dtype=jnp.int32)[None, :]
        return Coordinates(
            segment=jnp.where(self.live, spread(self.segment), 0),
            branch=spread(jnp.broadcast_to(number, shape[:2])),
            position=self.position,
            fork=spread(self.fork),
        )

    def slots(self, start: jax.Array | int, count: int) -> "Branches":
        """Return the `count` slots from `start`, which may be traced."""
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)
        return dataclasses.replace(
            self, tokens=cut(self.tokens), position=cut(self.position), live=cut(self.live)
        )


def empty_branch_cache(
    model: Transformer, trunk: Trunk, trunk_cache: Cache, branches: Branches, slots: int
) -> Cache:
    """Create the cache of branches that have not run any slot yet.

    Args:
      model: the network that filled `trunk_cache`.
      trunk: the rows that the branches leave, prefilled with the forks of all of them.
      trunk_cache: cache of the trunk.
      branches: the branches, [B, N, …].
      slots: required capacity in tokens of each branch; it may be rounded up.
    """
    return caches.begin(model.config, trunk, trunk_cache, branches, slots)


def forward(model: Transformer, trunk: Trunk) -> jax.Array:
    """Return the final hidden states [B, T, D] of packed rows."""
    return _trunk_pass(model, trunk, with_cache=False)[0]


def prefill(model: Transformer, trunk: Trunk) -> tuple[jax.Array, Cache]:
    """Return the final hidden states [B, T, D] of packed rows, and their cache."""
    return _trunk_pass(model, trunk, with_cache=True)


def _trunk_pass(model: Transformer, trunk: Trunk, with_cache: bool) -> tuple[jax.Array, Any]:
    config, rows = model.config, Rows(trunk, trunk.at)

    def apply(kind: LayerKind, layer: Any, x: jax.Array, prepared: Any, *_: Any) -> Any:
        x, cache = kind.on_rows(config, layer, x, rows, prepared)
        return x, cache if with_cache else None

    prepared = {kind: kind.prepare_rows(config, rows) for kind in kind_counts(config)}
    x = model.embed(trunk.tokens)
    x, cached = Pass(config, prepared, apply).through(model.blocks, x)
    return model.norm(x), Cache(cached) if with_cache else None


def extend(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    branch_cache: Cache | None = None,
    start: jax.Array | int = 0,
    count: int | None = None,
) -> tuple[jax.Array, Any]:
    """Run slots start … start+count-1 of every branch on the caches.

    Args:
      model: the network that filled the caches.
      trunk: the rows whose cache is `trunk_cache`.
      trunk_cache: cache of the trunk, which is only read.
      branches: W slots, of which those before `start` have been run; dead slots are masked.
      branch_cache: cache of the slots run so far, with capacity for these; None to run all slots
        at once.
      start: first slot; may be traced.
      count: number of slots, static; None runs all of them.

    Returns:
      Final hidden states [B, N, count, D], and the branch cache with these slots (None if
      `branch_cache` is None).
    """
    config, (batch, groups, slots) = model.config, branches.tokens.shape
    count = slots if count is None else count
    run = branches if branch_cache is None else branches.slots(start, count)
    run_at = branch_at = run.at
    room = None if branch_cache is None else branch_cache.slots
    if room is not None:
        branch_at = _padded(branches.at, room)
    where = Slots(trunk, branches, run, start, room, trunk.at, run_at, branch_at)

    def apply(
        kind: LayerKind,
        layer: Any,
        x: jax.Array,
        prepared: Any,
        read: LayerCache,
        written: LayerCache,
    ) -> Any:
        return kind.on_slots(config, layer, x, where, prepared, read, written)

    prepared = {kind: kind.prepare_slots(config, where) for kind in kind_counts(config)}
    x = model.embed(run.tokens.reshape(batch, groups * count))
    x, cached = Pass(config, prepared, apply, trunk_cache, branch_cache).through(model.blocks, x)
    hidden = model.norm(x).reshape(batch, groups, count, -1)
    return hidden, None if branch_cache is None else Cache(cached, branch_cache.slots)


def forward_together(
    model: Transformer, trunk: Trunk, branches: Branches
) -> tuple[jax.Array, jax.Array]:
    """Run documents and all slots of their branches in one pass over the layers.

    It equals `prefill`, then `extend` without a branch cache, but reads every weight once.

    Args:
      model: the network.
      trunk: rows of T tokens.
      branches: W slots; dead ones are masked.

    Returns:
      Final hidden states of the rows, [B, T, D], and of the branches, [B, N, W, D].
    """
    config, (batch, groups, count) = model.config, branches.tokens.shape
    rows = Rows(trunk, trunk.at)
    slots = Slots(trunk, branches, branches, 0, None, trunk.at, branches.at, branches.at)

    def apply(kind: LayerKind, layer: Any, x: jax.Array, prepared: Any, *_: Any) -> Any:
        return kind.on_rows_and_slots(config, layer, x, rows, slots, prepared), None

    prepare = lambda kind: (kind.prepare_rows(config, rows), kind.prepare_slots(config, slots))
    prepared = {kind: prepare(kind) for kind in kind_counts(config)}
    tokens = [trunk.tokens, branches.tokens.reshape(batch, groups * count)]
    x = model.embed(jnp.concatenate(tokens, axis=1))
    x, _ = Pass(config, prepared, apply).through(model.blocks, x)
    x, length = model.norm(x), trunk.tokens.shape[1]
    return x[:, :length], x[:, length:].reshape(batch, groups, count, -1)


def _padded(at: Coordinates, slots: int) -> Coordinates:
    """Cut or pad the coordinates of branches to [B, N, slots]; padding has segment 0."""
    more = max(0, slots - at.segment.shape[-1])
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, more)])[..., :slots], at)
