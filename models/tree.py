"""A document is a trunk, a thought is a branch: the forward passes over both, and their caches.

    forward        packed rows of documents, no cache          next-token loss, baseline evidence
    prefill        the same, keeping the trunk's cache         start of a rollout
    extend         a few tokens per branch on the caches       decoding, teacher-forced evidence
    forward_tree   trunk and all branches in one pass          the update, differentiable

The trunk's keys and values are computed once per document in each of them and never copied per
branch. All four give the same hidden states for the same tokens, up to rounding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import Coordinates, Keys, attention
from models.transformer import Transformer


@flax.struct.dataclass
class Trunk:
    """Rows of documents."""

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

    def slots(self, start: int, stop: int) -> "Branches":
        """The slots from `start` up to `stop`."""
        cut = lambda x: x[:, :, start:stop]
        return dataclasses.replace(
            self, tokens=cut(self.tokens), position=cut(self.position), live=cut(self.live)
        )


@flax.struct.dataclass
class Cache:
    """Keys and values of all layers. Memory grows with the tokens it holds, not with who reads."""

    key: jax.Array  # [layers, B, T, kv_heads, head_dim], or [layers, B, N, W, kv_heads, head_dim]
    value: jax.Array


def empty_branch_cache(model: Transformer, batch: int, branches: int, slots: int) -> Cache:
    """Room for `slots` tokens on each of `branches` branches of `batch` rows."""
    c = model.config
    shape = (c.num_layers, batch, branches, slots, c.num_kv_heads, c.head_dim)
    return Cache(key=jnp.zeros(shape, c.dtype), value=jnp.zeros(shape, c.dtype))


def forward(model: Transformer, trunk: Trunk) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows."""
    return _trunk_pass(model, trunk, keep=False)[0]


def prefill(model: Transformer, trunk: Trunk) -> tuple[jax.Array, Cache]:
    """Final hidden states [B, T, D] of packed rows, and their cache."""
    hidden, (key, value) = _trunk_pass(model, trunk, keep=True)
    return hidden, Cache(key=key, value=value)


def _trunk_pass(model: Transformer, trunk: Trunk, keep: bool) -> tuple[jax.Array, Any]:
    at = trunk.at

    def attend(q, k, v):
        one_group = jax.tree.map(lambda x: x[:, None], at)
        mixed = attention(
            q[:, None], one_group, Keys(k, v, at), implementation=model.config.attention
        )
        return mixed[:, 0], (k, v) if keep else None

    hidden, kept = _scan_blocks(model, model.embed(trunk.tokens), trunk.position, attend)
    return model.norm(hidden), kept


def forward_tree(model: Transformer, trunk: Trunk, branches: Branches) -> jax.Array:
    """Final hidden states [B, N, W, D] of the branches, computed together with their trunk.

    Trunk and branches share every matmul with a weight: a row is the T trunk tokens followed by the
    N·W branch tokens. Gradients flow through the trunk's keys and values, once for all branches.
    """
    batch, length = trunk.tokens.shape
    _, count, slots = branches.tokens.shape
    flat = lambda x: x.reshape(batch, count * slots)
    join = lambda a, b: jnp.concatenate([a, flat(b)], axis=1)
    trunk_at, branch_at = trunk.at, branches.at
    group = lambda x: x[:, length:].reshape(batch, count, slots, *x.shape[2:])

    def attend(q, k, v):
        keys = Keys(k[:, :length], v[:, :length], trunk_at)
        one_group = jax.tree.map(lambda x: x[:, None], trunk_at)
        name = model.config.attention
        trunk_out = attention(q[:, None, :length], one_group, keys, implementation=name)[:, 0]
        own = Keys(group(k), group(v), branch_at)
        branch_out = attention(group(q), branch_at, keys, own, implementation=name)
        branch_out = branch_out.reshape(batch, count * slots, *branch_out.shape[3:])
        return jnp.concatenate([trunk_out, branch_out], axis=1), None

    x = model.embed(join(trunk.tokens, branches.tokens))
    x, _ = _scan_blocks(model, x, join(trunk.position, branches.position), attend)
    return model.norm(group(x))


def extend(
    model: Transformer,
    trunk: Trunk,
    trunk_cache: Cache,
    branches: Branches,
    branch_cache: Cache,
    start: jax.Array | int,
    count: int,
) -> tuple[jax.Array, Cache]:
    """Runs slots start … start+count-1 of every branch on the caches.

    Args:
      model: the network that filled the caches.
      trunk: the rows whose cache is `trunk_cache`.
      trunk_cache: keys and values of the trunk, read and not changed.
      branches: all W slots; those before `start` must have been run, `live` says which count.
      branch_cache: keys and values of the slots run so far.
      start: first slot, may be traced.
      count: number of slots, static.

    Returns:
      Final hidden states [B, N, count, D] and the branch cache with these slots filled.
    """
    batch, groups, _ = branches.tokens.shape
    run = lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=2)
    trunk_at, own_at = trunk.at, branches.at
    query_at = jax.tree.map(run, own_at)
    position = run(branches.position).reshape(batch, groups * count)
    graph, params = nnx.split(model.blocks)

    def layer(carry, inputs):
        x, own_key, own_value = carry
        block_params, trunk_key, trunk_value, index = inputs

        def attend(q, k, v):
            group = lambda y: y.reshape(batch, groups, count, *y.shape[2:])
            put = lambda cache, new: jax.lax.dynamic_update_slice(
                cache, group(new)[None], (index, 0, 0, start, 0, 0)
            )
            key, value = put(own_key, k), put(own_value, v)
            own = Keys(key[index], value[index], own_at)
            mixed = attention(
                group(q),
                query_at,
                Keys(trunk_key, trunk_value, trunk_at),
                own,
                implementation=model.config.attention,
            )
            return mixed.reshape(batch, groups * count, *mixed.shape[3:]), (key, value)

        x, (own_key, own_value) = nnx.merge(graph, block_params)(x, position, attend)
        return (x, own_key, own_value), None

    x = model.embed(run(branches.tokens).reshape(batch, groups * count))
    (x, key, value), _ = jax.lax.scan(
        layer,
        (x, branch_cache.key, branch_cache.value),
        (params, trunk_cache.key, trunk_cache.value, jnp.arange(model.config.num_layers)),
    )
    hidden = model.norm(x).reshape(batch, groups, count, -1)
    return hidden, Cache(key=key, value=value)


def _scan_blocks(
    model: Transformer, x: jax.Array, position: jax.Array, attend: Callable
) -> tuple[jax.Array, Any]:
    """All blocks in turn over x [B, S, D], and what `attend` kept, stacked over layers."""
    graph, params = nnx.split(model.blocks)

    def block(x, block_params):
        return nnx.merge(graph, block_params)(x, position, attend)

    return jax.lax.scan(_rematerialised(block, model.config.remat), x, params)


def _rematerialised(block: Callable, policy: str) -> Callable:
    """The block with its activations kept ("none"), or computed again in the backward pass."""
    if policy == "none":
        return block
    if policy == "dots":
        saveable = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(block, policy=saveable, prevent_cse=False)
    return jax.checkpoint(block, prevent_cse=False)
