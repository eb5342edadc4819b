"""Softmax attention as a kind of layer: grouped queries, RoPE, QK norm, local windows,
an output gate.

Its caches are keys and values: [B, kv_heads, T, head_dim] for the tokens of a trunk, and [B,
kv_heads, N, W, head_dim] for the slots of branches. `models.attention` computes attention itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from models.attention import attention, choose_implementation, find_worklists
from models.attention_kernels import PLATFORMS
from models.attention_xla import query_runs
from models.layers.key_values import KeyValues
from models.layers.linear import Linear
from models.layers.norm import RMSNorm, normed
from models.layers.protocol import (
    BranchTokens,
    Cost,
    LayerCache,
    LayerKind,
    Rows,
    Slots,
    TrunkTokens,
)
from models.mask import Coordinates, Keys, Window
from models.rope import Rotation, rotate
from models.sharding import constrain

if TYPE_CHECKING:
    from models.config import ModelConfig

NO_LIMIT = 2**30  # a window larger than any text


class Projections(nnx.Module):
    """Projections and norms around attention; the caller passes the attention as `attend`."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        q, k, v, o = jax.random.split(key, 4)
        width, head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_heads * head_dim, config.num_kv_heads * head_dim
        self.gated = config.attention_gate
        self.q = Linear(width, queries * (1 + self.gated), q, bias=config.qkv_bias)
        self.k = Linear(width, keys, k, bias=config.qkv_bias)
        self.v = Linear(width, keys, v, bias=config.qkv_bias)
        self.o = Linear(queries, width, o)
        sizes = {"none": (0, 0), "head": (head_dim, head_dim), "all_heads": (queries, keys)}
        self.q_norm, self.k_norm = (
            RMSNorm(size, config) if size else None for size in sizes[config.qk_norm]
        )
        self.norm_all_heads = config.qk_norm == "all_heads"
        self.head_dim = head_dim

    def __call__(self, x: jax.Array, rotation: Rotation, attend: Callable) -> tuple[Any, Any]:
        """Return the layer's output [B, S, D] and the cache that `attend` returns.

        Args:
          x: normalized input, [B, S, D].
          rotation: rotary angles of the tokens.
          attend: called as `attend(q, k, v)` with arrays [B, S, heads, head_dim]; returns the
            attention output in the shape of q, and a cache.
        """
        heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)  # [B, S, heads, head_dim]
        q, k, v, gate = self.q(x), self.k(x), heads(self.v(x)), None
        if self.gated:  # each head has [query, gate]
            pairs = q.reshape(*q.shape[:2], -1, 2, self.head_dim)
            q, gate = (pairs[..., i, :].reshape(*x.shape[:2], -1) for i in range(2))
        if self.norm_all_heads:
            q, k = heads(normed(self.q_norm, q)), heads(normed(self.k_norm, k))
        else:
            q, k = normed(self.q_norm, heads(q)), normed(self.k_norm, heads(k))
        out, cache = attend(rotate(q, rotation), rotate(k, rotation), v)
        out = out.reshape(*x.shape[:2], -1)
        return self.o(out if gate is None else out * jax.nn.sigmoid(gate)), cache


@dataclasses.dataclass(frozen=True)
class Attention(LayerKind):
    """Attention over all earlier tokens, or over a sliding window if `local`; with rotary position
    embedding, or without positions if not `rotary`.

    It prepares the rotary angles, and the window and work lists for `models.attention`.
    """

    local: bool = False
    rotary: bool = True

    name: ClassVar[str] = "attention"
    axes: ClassVar = {
        "q/kernel": ("width", "heads"),
        "k/kernel": ("width", "kv_heads"),
        "v/kernel": ("width", "kv_heads"),
        "o/kernel": ("heads", "width"),
        "q/bias": ("heads",),
        "k/bias": ("kv_heads",),
        "v/bias": ("kv_heads",),
        "q_norm/scale": ("norm",),
        "k_norm/scale": ("norm",),
    }

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return Projections(config, key)

    def check(self, config: ModelConfig, tensor: int) -> None:
        if config.num_kv_heads % tensor:
            raise ValueError(
                f"mesh.tensor={tensor} does not divide the {config.num_kv_heads} heads of keys "
                "and values (model.num_kv_heads); lower mesh.tensor and raise mesh.fsdp"
            )
        choose_implementation(config.attention, config.head_dim, config.dtype)

    def prepare_rows(self, config: ModelConfig, rows: Rows) -> Any:
        one_group = jax.tree.map(lambda x: x[:, None], rows.at)
        options = self._attention_options(config, one_group, rows.at, None)
        return self._rotation(config, rows.trunk.position), options

    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, KeyValues]:
        rotation, options = prepared
        return layer(x, rotation, functools.partial(_attend_rows, config, rows, options))

    def prepare_slots(self, config: ModelConfig, slots: Slots) -> Any:
        position = slots.run.position
        options = self._attention_options(config, slots.run_at, slots.trunk_at, slots.branch_at)
        return self._rotation(config, position.reshape(position.shape[0], -1)), options

    def on_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        slots: Slots,
        prepared: Any,
        trunk_cache: LayerCache,
        branch_cache: LayerCache | None,
    ) -> tuple[jax.Array, LayerCache | None]:
        rotation, options = prepared
        caches = trunk_cache, branch_cache
        attend = functools.partial(_attend_slots, config, slots, options, *caches)
        return layer(x, rotation, attend)

    def on_rows_and_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        rows: Rows,
        slots: Slots,
        prepared: tuple[Any, Any],
    ) -> jax.Array:
        (row_rotation, row_options), (slot_rotation, slot_options) = prepared
        length, join = rows.at.segment.shape[1], lambda *x: jnp.concatenate(x, axis=1)

        def attend(*qkv: jax.Array) -> tuple[jax.Array, None]:
            of_rows, of_slots = [x[:, :length] for x in qkv], [x[:, length:] for x in qkv]
            out, cache = _attend_rows(config, rows, row_options, *of_rows)
            caches = LayerCache(cache), None
            more, _ = _attend_slots(config, slots, slot_options, *caches, *of_slots)
            return join(out, more), None

        return layer(x, jax.tree.map(join, row_rotation, slot_rotation), attend)[0]

    def _attention_options(
        self,
        config: ModelConfig,
        at: Coordinates,
        trunk_at: Coordinates,
        branch_at: Coordinates | None,
    ) -> dict[str, Any]:
        """Return the window and the work lists for `models.attention`."""
        # If some layers are local, the others have a window too, so that a scan can select one.
        no_limit = NO_LIMIT if config.sliding_window else None
        window: Window = config.sliding_window if self.local else no_limit
        worklists = find_worklists(
            at,
            trunk_at,
            branch_at,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.dtype,
            window=window,
            implementation=config.attention,
        )
        return {"window": window, "worklists": worklists}

    def _rotation(self, config: ModelConfig, position: jax.Array) -> Rotation:
        if not self.rotary:
            return Rotation.by_nothing(position, config.rope, config.head_dim)
        return Rotation.at(position, config.rope, config.head_dim, local=self.local)

    def trunk_cache(self, config: ModelConfig, rows: int, length: int, forks: int) -> KeyValues:
        del forks
        shape = (rows, config.num_kv_heads, length, config.head_dim)
        return KeyValues(*[jax.ShapeDtypeStruct(shape, config.dtype)] * 2)

    def branch_cache(self, config: ModelConfig, rows: int, branches: int, slots: int) -> KeyValues:
        shape = (rows, config.num_kv_heads, branches, slots, config.head_dim)
        arrays = KeyValues(*[jax.ShapeDtypeStruct(shape, config.dtype)] * 2)
        # A new function: traces of the same one would be reused for other backends.
        return jax.eval_shape(lambda arrays: arrays.held(), arrays)

    joins = True

    def joined(
        self, config: ModelConfig, trunk_cache: KeyValues, branch_cache: KeyValues
    ) -> KeyValues:
        def join(before: jax.Array, after: jax.Array) -> jax.Array:
            after = after.swapaxes(1, 2)  # [B, N, heads, S, head_dim]
            before = jnp.broadcast_to(before[:, None], (*after.shape[:3], *before.shape[2:]))
            both = jnp.concatenate([before, after], axis=3)
            return constrain(both.reshape(-1, *both.shape[2:]), "rows", "kv_heads")

        return jax.tree.map(join, trunk_cache, branch_cache.read())

    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        width, kernels, count = config.hidden_size, by_kernels(config), tokens.count
        q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        projected = (2 + config.attention_gate) * q + 2 * kv
        pairs = offered_pairs(config, tokens)
        mixing = 4 * pairs * q
        return Cost(
            linear=2 * count * width * projected,
            mixing=mixing,
            # The backward pass recomputes the scores; in the kernels, dq and dkv both do, and dkv
            # also the products with the values.
            again=(3 if kernels else 1) * mixing // 2,
            last=2 * count * width * q,
            cached=4 * count * width * kv,
            moved=count * (2 * width + projected),
            scratch=0 if kernels else pairs * config.num_heads,
        )

    def traffic(
        self, config: ModelConfig, trunk_bytes: float, branch_bytes: float, decoding: bool
    ) -> float:
        return trunk_bytes + branch_bytes * (0.5 if decoding and by_kernels(config) else 1)


def _attend_rows(
    config: ModelConfig,
    rows: Rows,
    options: dict[str, Any],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> tuple[jax.Array, KeyValues]:
    """Return the attention output of documents [B, T, heads, head_dim], and their keys and values;
    q, k and v are [B, T, heads, head_dim]."""
    one_group = jax.tree.map(lambda x: x[:, None], rows.at)
    k, v = (constrain(x.swapaxes(1, 2), "rows", "kv_heads") for x in (k, v))
    out = attention(
        q[:, None],
        one_group,
        Keys(k, v, rows.at),
        scale=config.attention_scale,
        in_order=True,
        implementation=config.attention,
        **options,
    )
    return out[:, 0], KeyValues(k, v)


def _attend_slots(
    config: ModelConfig,
    slots: Slots,
    options: dict[str, Any],
    trunk_cache: LayerCache,
    branch_cache: LayerCache | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> tuple[jax.Array, LayerCache | None]:
    """Return the attention output of slots [B, N · count, heads, head_dim], and the branch cache
    with their keys and values; q, k and v are [B, N · count, heads, head_dim]."""
    shape = slots.run.tokens.shape
    group = lambda x: x.reshape(*shape, *x.shape[2:])
    heads_first = lambda x: constrain(group(x).transpose(0, 3, 1, 2, 4), "rows", "kv_heads")
    branch, cache = LayerCache(KeyValues(heads_first(k), heads_first(v))), None
    if branch_cache is not None:
        cache = branch_cache.written(branch.arrays.held(), slots.start)
        trunk_cache, branch = _readable(trunk_cache, cache)
    out = attention(
        group(q),
        slots.run_at,
        _keys(trunk_cache, slots.trunk_at),
        _keys(branch, slots.branch_at),
        scale=config.attention_scale,
        implementation=config.attention,
        **options,
    )
    return out.reshape(shape[0], -1, *out.shape[3:]), cache


def _readable(trunk_cache: LayerCache, branch_cache: LayerCache) -> tuple[LayerCache, LayerCache]:
    """Return both caches as keys and values [..., slots, head_dim]; those of this layer alone, if
    branches hold theirs in another form (`KeyValues.held`)."""
    if branch_cache.arrays.by_dimension:
        branch = branch_cache.of_layer().read()
        return LayerCache(trunk_cache.of_layer()), LayerCache(branch)
    return trunk_cache, branch_cache


def _keys(cache: LayerCache, at: Coordinates) -> Keys:
    return Keys(cache.arrays.key, cache.arrays.value, at, cache.index)


def by_kernels(config: ModelConfig) -> bool:
    """Return whether kernels compute attention, which skip invisible blocks and store no scores."""
    return choose_implementation(config.attention, config.head_dim, config.dtype) in PLATFORMS


def offered_pairs(config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> int:
    """Return the number of (query, key) pairs that attention computes for these tokens, per head.

    Kernels skip what is not visible. Forks are not known here, so a branch counts as if it saw its
    whole trunk.
    """
    if isinstance(tokens, TrunkTokens):
        length = tokens.length
        if by_kernels(config):
            return tokens.rows * (length * (length + 1) // 2)
        return tokens.rows * sum((stop - start) * stop for start, stop in query_runs(length))
    if by_kernels(config):
        slots = tokens.slots
        return tokens.count * (2 * tokens.trunk + slots.start + 1 + slots.stop) // 2
    return tokens.count * (tokens.trunk + tokens.room)
