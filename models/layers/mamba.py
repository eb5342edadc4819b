"""Mamba-2 (arXiv 2405.21060) as a kind of layer: a recurrence with a short convolution before it.

Its caches are the states and the last inputs of the convolution, in a trunk those before each fork:
no array has an axis of tokens. `models.recurrence` computes the recurrence itself.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import TYPE_CHECKING, Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from models.backend import choices
from models.layers.mamba_mixer import Inputs, Mixer, Taps, each
from models.layers.protocol import (
    BranchTokens,
    Cost,
    LayerCache,
    LayerKind,
    Rows,
    Slots,
    TrunkTokens,
    at_branches,
)
from models.recurrence import (
    Places,
    chunks_of,
    convolve,
    convolve_live,
    ssd,
    step,
    windows_at,
)
from models.sharding import constrain

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.tree import Trunk


@flax.struct.dataclass
class MambaState:
    """What a layer needs of the text before: at the K forks of rows, or for N branches.

    Attributes:
      state: [B, heads, K or N, head_dim, size of a state] in `model.state_dtype`.
      window: the last inputs of the convolution, [B, heads or groups, K or N, taps - 1, …].
    """

    state: Any
    window: Inputs


@dataclasses.dataclass(frozen=True)
class Mamba2(LayerKind):
    """Mamba-2 with `model.mamba_heads` heads, groups of which share b and c.

    It prepares the places of the forks in their rows.
    """

    name: ClassVar[str] = "mamba"
    axes: ClassVar = {
        "z/kernel": ("width", "mamba_heads"),
        "x/kernel": ("width", "mamba_heads"),
        "b/kernel": ("width", "mamba_groups"),
        "c/kernel": ("width", "mamba_groups"),
        "step/kernel": ("width", "mamba_heads"),
        "out/kernel": ("mamba_heads", "width"),
        "x_taps/kernel": (None, "mamba_heads"),
        "x_taps/bias": ("mamba_heads",),
        "b_taps/kernel": (None, "mamba_groups"),
        "b_taps/bias": ("mamba_groups",),
        "c_taps/kernel": (None, "mamba_groups"),
        "c_taps/bias": ("mamba_groups",),
        "step_bias/offset": ("mamba_heads",),
        "log_rate/offset": ("mamba_heads",),
        "skip/scale": ("mamba_heads",),
        "norm/scale": ("mamba_heads",),
    }

    def init(self, config: ModelConfig, key: jax.Array) -> nnx.Module:
        return Mixer(config, key)

    def check(self, config: ModelConfig, tensor: int) -> None:
        if config.mamba_groups % tensor:
            raise ValueError(
                f"mesh.tensor={tensor} does not divide the {config.mamba_groups} groups of heads "
                "of Mamba-2 layers (model.mamba_groups); lower mesh.tensor and raise mesh.fsdp"
            )

    def prepare_rows(self, config: ModelConfig, rows: Rows) -> Places | None:
        return places_of_forks(rows.trunk)

    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, MambaState | None]:
        return layer(x, functools.partial(_mix_rows, config, layer, rows, prepared))

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
        if branch_cache is None:
            before = _at_branches(slots, trunk_cache)
        else:
            before = branch_cache.of_layer()
        y, after = layer(x, functools.partial(_mix_slots, config, layer, slots, before))
        return y, None if branch_cache is None else branch_cache.written(after)

    def on_rows_and_slots(
        self,
        config: ModelConfig,
        layer: Any,
        x: jax.Array,
        rows: Rows,
        slots: Slots,
        prepared: tuple[Any, Any],
    ) -> jax.Array:
        length = rows.at.segment.shape[1]

        def mix(*tokens: Any) -> tuple[jax.Array, None]:
            of_rows, of_slots = (
                jax.tree.map(lambda y, part=part: y[:, part], tokens)
                for part in (slice(length), slice(length, None))
            )
            y, cache = _mix_rows(config, layer, rows, prepared[0], *of_rows)
            before = _at_branches(slots, LayerCache(cache))
            more, _ = _mix_slots(config, layer, slots, before, *of_slots)
            return jnp.concatenate([y, more], axis=1), None

        return layer(x, mix)[0]

    def trunk_cache(self, config: ModelConfig, rows: int, length: int, forks: int) -> MambaState:
        del length
        return self.branch_cache(config, rows, forks, 0)

    def branch_cache(self, config: ModelConfig, rows: int, branches: int, slots: int) -> MambaState:
        del slots
        heads, groups = (rows, config.mamba_heads, branches), (rows, config.mamba_groups, branches)
        width, size, before = config.mamba_head_dim, config.mamba_state, config.mamba_taps - 1
        array = lambda *shape: jax.ShapeDtypeStruct(shape, config.dtype)
        return MambaState(
            jax.ShapeDtypeStruct((*heads, width, size), config.dtype_of_states),
            Inputs(
                array(*heads, before, width),
                array(*groups, before, size),
                array(*groups, before, size),
            ),
        )

    def begin(
        self, config: ModelConfig, trunk: Any, trunk_cache: LayerCache, branches: Any, slots: int
    ) -> MambaState:
        select = functools.partial(at_branches, trunk, branches)
        return jax.tree.map(select, trunk_cache.of_layer())

    joins = True

    def joined(
        self, config: ModelConfig, trunk_cache: MambaState, branch_cache: MambaState
    ) -> MambaState:
        """Each branch becomes a row, and its state that at the fork at its end."""

        def as_row(x: jax.Array) -> jax.Array:
            x = x.swapaxes(1, 2)  # [B, N, heads, …]
            x = x.reshape(-1, *x.shape[2:])
            return constrain(x[:, :, None], "rows", "mamba_heads")

        return jax.tree.map(as_row, branch_cache)

    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        """Decoding counts as if all slots ran at once; both differ by the pairs of a chunk."""
        width, count, heads = config.hidden_size, tokens.count, config.mamba_heads
        inner, shared = heads * config.mamba_head_dim, config.mamba_groups * config.mamba_state
        of_state = inner * config.mamba_state
        length = tokens.length if isinstance(tokens, TrunkTokens) else len(tokens.slots)
        chunks, chunk = chunks_of(max(length, 1), choices().scan_chunk)
        states = 2 * count * (of_state + chunk * heads)
        mixing = states + 2 * count * (of_state + chunk * (shared + inner))
        at_forks = 0
        if isinstance(tokens, TrunkTokens):
            selected = chunks * chunk * (inner + shared + heads) + (chunks + 1) * of_state
            each = selected + chunk * of_state + chunk**2 * heads
            at_forks = 2 * tokens.rows * tokens.forks * each
        of_cache = width * (inner + shared + heads)
        return Cost(
            linear=2 * count * (width * (3 * inner + 2 * shared + heads)),
            mixing=mixing + at_forks,
            again=mixing,
            last=2 * count * width * inner,
            cached=2 * count * of_cache + states + at_forks,
            moved=count * (2 * width + 3 * inner + 2 * shared + heads),
            scratch=count * chunk * heads + count * of_state // chunk,
        )

    def traffic(
        self, config: ModelConfig, trunk_bytes: float, branch_bytes: float, decoding: bool
    ) -> float:
        """A decoded token reads and writes its states; those of trunks are read when branches
        begin."""
        return branch_bytes * (2 if decoding else 1)


def places_of_forks(trunk: Trunk) -> Places | None:
    """Return the places of the forks in rows of documents, [B, 1, K]; None if there are none."""
    if trunk.forks is None:
        return None
    forks = trunk.forks
    own = trunk.segment[:, None] == forks.segment[..., None]  # [B, K, T]
    before = own & (trunk.position[:, None] < forks.position[..., None])
    place = jnp.argmax(own, axis=-1) + before.sum(axis=-1)
    return Places(place[:, None], forks.segment[:, None])


def _at_branches(slots: Slots, trunk_cache: LayerCache) -> MambaState:
    """Return what branches begin from: what was cached at their forks."""
    select = functools.partial(at_branches, slots.trunk, slots.branches)
    return jax.tree.map(select, trunk_cache.of_layer())


def _mix_rows(
    config: ModelConfig,
    layer: Any,
    rows: Rows,
    places: Places | None,
    inputs: Inputs,
    dt: jax.Array,
) -> tuple[jax.Array, MambaState | None]:
    """Return y [B, T, channels] of documents, and their states at the places, if there are any; see
    `Mixer.__call__`."""
    segment = rows.trunk.segment[:, None]
    inputs = each(lambda y: y[:, None], inputs)
    convolved = each(
        lambda y, t: convolve(y, t.kernel[...], t.bias[...], segment), inputs, layer.taps
    )
    mixed = _activated(config, convolved)
    y, state = ssd(
        mixed.x,
        dt[:, None],
        layer.rate,
        mixed.b,
        mixed.c,
        segment,
        chunk=choices().scan_chunk,
        places=places,
    )
    y = layer.with_skip(y, mixed.x)[:, 0]
    if places is None:
        return y, None
    window = lambda y: windows_at(y, segment, places, config.mamba_taps - 1)[:, 0]
    return y, _kept(config, state[:, :, 0], each(window, inputs))


def _mix_slots(
    config: ModelConfig,
    layer: Any,
    slots: Slots,
    before: MambaState,
    inputs: Inputs,
    dt: jax.Array,
) -> tuple[jax.Array, MambaState]:
    """Return y [B, N · count, channels] of slots, and the states after them."""
    live = slots.run.live
    grouped = lambda y: y.reshape(*live.shape, -1)

    def run(y: jax.Array, taps: Taps, window: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = taps.kernel[...], taps.bias[...]
        return convolve_live(grouped(y), *own, live, _channels_last(window))

    convolved = each(run, inputs, layer.taps, before.window)
    mixed = _activated(config, each(operator.itemgetter(0), convolved))
    window = each(operator.itemgetter(1), convolved)
    dt = jnp.where(live[..., None], grouped(dt), 0)
    if live.shape[-1] == 1:
        first = lambda y: y[:, :, 0]
        tokens = first(mixed.x), first(dt), layer.rate, first(mixed.b), first(mixed.c)
        y, state = step(*tokens, before.state)
        y = y[:, :, None]
    else:
        y, state = ssd(
            mixed.x,
            dt,
            layer.rate,
            mixed.b,
            mixed.c,
            jnp.ones(live.shape, jnp.int32),
            chunk=choices().scan_chunk,
            start=before.state,
        )
    y = layer.with_skip(y, mixed.x)
    return y.reshape(len(y), -1, y.shape[-1]), _kept(config, state, window)


def _activated(config: ModelConfig, convolved: Inputs) -> Inputs:
    """Apply silu to convolved inputs, and split their channels: [B, N, T, heads or groups, …]."""
    active = lambda y: jax.nn.silu(y).astype(config.dtype)
    return _split(config, each(active, convolved))


def _split(config: ModelConfig, inputs: Inputs) -> Inputs:
    """Split the channels of inputs [..., channels] into heads or groups."""
    numbers = Inputs(config.mamba_heads, config.mamba_groups, config.mamba_groups)
    return each(lambda y, number: y.reshape(*y.shape[:-1], number, -1), inputs, numbers)


def _kept(config: ModelConfig, state: jax.Array, window: Inputs) -> MambaState:
    """Return a cache, given windows [B, N, taps - 1, channels]."""
    window = each(lambda y: jnp.moveaxis(y, 3, 1), _split(config, window))
    state = state.astype(config.dtype_of_states)
    place = lambda y: constrain(y, "rows", "mamba_heads")
    return jax.tree.map(place, MambaState(state, window))


def _channels_last(window: jax.Array) -> jax.Array:
    """Return a window of a cache, [B, heads, N, taps - 1, …], as [B, N, taps - 1, channels]."""
    window = jnp.moveaxis(window, 1, 3)
    return window.reshape(*window.shape[:3], -1)
