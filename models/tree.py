"""A document is a trunk, a thought is a branch: the forward passes over both, and their caches.

    forward    packed rows of documents, no cache           next-token loss, baseline evidence
    prefill    the same, keeping the trunk's cache          start of a rollout and of an update
    extend     some slots of all branches on the caches     decoding, evidence, and, with all slots
                                                            at once and no cache of their own, the
                                                            update

The trunk's keys and values are computed once per document and never copied per branch. All passes
are differentiable, in the parameters and in the caches they read, and give the same hidden states
for the same tokens, up to rounding. A gradient through `extend` ends in the trunk's cache; one
backward pass of `prefill` then serves all branches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import Coordinates, Keys, attention
from models.layers import Rotation
from models.transformer import Transformer


@flax.struct.dataclass
class Trunk:
    """Rows of documents, one after the other."""

    tokens: jax.Array  # [B, T] int32
    segment: jax.Array  # [B, T] int32; which document of the row, 0 = padding
    position: jax.Array  # [B, T] int32; tokens from the start of the document

    @property
    def at(self) -> Coordinates:
        """Coordinates of the tokens, [B, T]."""
        return Coordinates.of_trunk(self.segment, self.position)


@flax.struct.dataclass
class Branches:
    """W tokens on each of N branches of every row; slots that are not live are seen by nobody."""

    tokens: jax.Array  # [B, N, W] int32
    position: jax.Array  # [B, N, W] int32; the first token of a branch has its fork's position
    live: jax.Array  # [B, N, W] bool
    segment: jax.Array  # [B, N] int32; which document of the row the branch left
    fork: jax.Array  # [B, N] int32; the branch sees trunk positions below this one

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
        """The `count` slots from `start` on; `start` may be traced."""
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)
        return dataclasses.replace(
            self, tokens=cut(self.tokens), position=cut(self.position), live=cut(self.live)
        )


@flax.struct.dataclass
class Cache:
    """Keys and values of all layers. Memory grows with the tokens it holds, not with who reads.

    One array for all layers, stacked on a leading axis, or a list with one for each, as the
    network's blocks are. Of one layer: a trunk's [B, kv_heads, T, head_dim], or the branches'
    [B, kv_heads, N, W, head_dim].
    """

    key: Any
    value: Any

    def grown(self, slots: int) -> "Cache":
        """With room for so many more tokens."""
        pad = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, slots), (0, 0)])
        return jax.tree.map(pad, self)


def empty_branch_cache(model: Transformer, batch: int, branches: int, slots: int) -> Cache:
    """Room for `slots` tokens on each of `branches` branches of `batch` rows."""
    c = model.config
    zeros = lambda *lead: jnp.zeros(
        (*lead, batch, c.num_kv_heads, branches, slots, c.head_dim), c.dtype
    )
    if isinstance(model.blocks, nnx.List):
        each = lambda: [zeros() for _ in range(c.num_layers)]
        return Cache(key=each(), value=each())
    return Cache(key=zeros(c.num_layers), value=zeros(c.num_layers))


def forward(model: Transformer, trunk: Trunk) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows."""
    return _trunk_pass(model, trunk, keep=False)[0]


def prefill(model: Transformer, trunk: Trunk) -> tuple[jax.Array, Cache]:
    """Final hidden states [B, T, D] of packed rows, and their cache."""
    hidden, (key, value) = _trunk_pass(model, trunk, keep=True)
    return hidden, Cache(key=key, value=value)


def _trunk_pass(model: Transformer, trunk: Trunk, keep: bool) -> tuple[jax.Array, Any]:
    at = trunk.at
    one_group = jax.tree.map(lambda x: x[:, None], at)

    def attend(q, k, v):
        k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
        mixed = attention(
            q[:, None],
            one_group,
            Keys(k, v, at),
            in_order=True,
            implementation=model.config.attention,
        )
        return mixed[:, 0], (k, v) if keep else None

    hidden, kept = _through_blocks(model, trunk.tokens, trunk.position, attend)
    return model.norm(hidden), kept


def extend(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    branch_cache: Cache | None = None,
    start: jax.Array | int = 0,
    count: int | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs slots start … start+count-1 of every branch on the caches.

    Args:
      model: the network that filled the caches.
      trunk: the rows whose cache is `trunk_cache`.
      trunk_cache: keys and values of the trunk, read and not changed.
      branches: W slots; those before `start` must have been run, `live` says which count.
      branch_cache: keys and values of the slots run so far, with room for these; None to run all
        slots at once.
      start: first slot, may be traced.
      count: number of slots, static; None runs all.

    Returns:
      Final hidden states [B, N, count, D] and the branch cache with these slots filled.
    """
    batch, groups, slots = branches.tokens.shape
    count = slots if count is None else count
    run = branches if branch_cache is None else branches.slots(start, count)
    trunk_at, run_at = trunk.at, run.at
    own_at = run_at
    if branch_cache is not None:
        own_at = branches.slots(0, jax.tree.leaves(branch_cache)[0].shape[-2]).at
    flat = lambda x: x.reshape(batch, groups * count, *x.shape[3:])

    def attend(q, k, v, trunk_layer, own_layer=None):
        group = lambda x: x.reshape(batch, groups, count, *x.shape[2:])
        own = Cache(key=group(k).transpose(0, 3, 1, 2, 4), value=group(v).transpose(0, 3, 1, 2, 4))
        if own_layer is not None:
            put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, axis=3)
            own = jax.tree.map(put, own_layer, own)
        mixed = attention(
            group(q),
            run_at,
            Keys(trunk_layer.key, trunk_layer.value, trunk_at),
            Keys(own.key, own.value, own_at),
            implementation=model.config.attention,
        )
        return flat(mixed), (own.key, own.value)

    caches = (trunk_cache,) if branch_cache is None else (trunk_cache, branch_cache)
    x, (key, value) = _through_blocks(
        model, flat(run.tokens), flat(run.position), attend, *caches
    )
    return model.norm(x).reshape(batch, groups, count, -1), Cache(key=key, value=value)


def _through_blocks(
    model: Transformer, tokens: jax.Array, position: jax.Array, attend: Callable, *caches: Cache
) -> tuple[jax.Array, Any]:
    """The tokens [B, S] through all blocks: [B, S, D] before the final norm, and what `attend` kept
    of each layer. `attend` is given the layer's part of the caches."""
    x, rotation = model.embed(tokens), Rotation.at(position, model.config)

    def block(x, module, layer):
        return module(x, rotation, lambda q, k, v: attend(q, k, v, *layer))

    if isinstance(model.blocks, nnx.List):
        kept = []
        is_list = lambda x: isinstance(x, list)
        for i, module in enumerate(model.blocks):
            graph, params = nnx.split(module)
            layer = jax.tree.map(lambda each: each[i], caches, is_leaf=is_list)  # noqa: B023
            run = lambda x, params, layer: block(x, nnx.merge(graph, params), layer)  # noqa: B023
            x, new = _rematerialised(run, model.config.remat, scanned=False)(x, params, layer)
            kept.append(new)
        return x, jax.tree.map(lambda *each: list(each), *kept)
    graph, params = nnx.split(model.blocks)
    run = lambda x, layer: block(x, nnx.merge(graph, layer[0]), layer[1])
    return jax.lax.scan(_rematerialised(run, model.config.remat, scanned=True), x, (params, caches))


def _rematerialised(block: Callable, policy: str, *, scanned: bool) -> Callable:
    """The block with its activations kept ("none"), or computed again in the backward pass.

    Outside of a scan the compiler must be kept from merging the second computation with the first.
    """
    if policy == "none":
        return block
    saveable = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(
        block, policy=saveable if policy == "dots" else None, prevent_cse=not scanned
    )
