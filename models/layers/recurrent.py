"""What kinds of layers with a recurrence share: a short convolution, the recurrence, their caches.

The caches are the states and the last inputs of the convolution, in a trunk those before each fork:
no array has an axis of tokens. `models.recurrence` and `models.convolution` compute both.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import operator
from typing import TYPE_CHECKING, Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from models.backend import choices
from models.convolution import convolve, convolve_live, windows_at
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
from models.layers.recurrent_parts import Inputs, Taps, each
from models.recurrence import Places, chunks_of, recur, step
from models.sharding import constrain

if TYPE_CHECKING:
    from models.config import ModelConfig
    from models.tree import Trunk


@flax.struct.dataclass
class State:
    """What a layer needs of the text before: at the K forks of rows, or for N branches.

    Attributes:
      state: [B, heads, K or N, key_dim, head_dim] in `model.state_dtype`.
      window: the last inputs of the convolution, [B, heads or groups, K or N, taps - 1, …].
    """

    state: Any
    window: Inputs


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a recurrence.

    Attributes:
      heads: heads, each with a state [key_dim, head_dim].
      head_dim: width of the values of a head.
      groups: groups of heads that share keys and queries.
      key_dim: width of keys and queries.
      taps: tokens that the convolution sees, the last one included.
      gates: linear maps with a number for each head.
    """

    heads: int
    head_dim: int
    groups: int
    key_dim: int
    taps: int
    gates: int

    @property
    def inner(self) -> int:
        """Channels of the values of all heads."""
        return self.heads * self.head_dim

    @property
    def shared(self) -> int:
        """Channels of the keys of all groups, and of the queries."""
        return self.groups * self.key_dim


class Recurrent(LayerKind):
    """A kind of layer with a recurrence; it prepares the places of the forks in their rows.

    Its layer is called as `layer(x, mix)` with normalized x [B, S, D], and returns the output and
    the cache that `mix` returns. `mix(inputs, gates)` takes `Inputs` before the convolution, [B, S,
    channels], and a tuple of arrays [B, S, heads] that are 0 where a token does nothing, and
    returns y [B, S, channels of the values] in float32, and a cache. A layer has `taps`, the `Taps`
    of each input; `tokens(mixed, gates)`, the `models.recurrence.Tokens` of convolved inputs
    [..., heads or groups, channels of each] and gates; and `outputs(y, mixed)`, y [..., channels]
    for outputs of the recurrence [..., heads, head_dim].
    """

    pair_arrays: ClassVar[int] = 1  # arrays of all pairs of tokens of a chunk, for each head

    @abc.abstractmethod
    def sizes(self, config: ModelConfig) -> Sizes:
        """Return the sizes of the recurrence."""

    def correction(self, config: ModelConfig, count: int, chunk: int) -> int:
        """Return the FLOPs with which values are corrected by what states hold for their keys, for
        `count` tokens in chunks of `chunk`."""
        del config, count, chunk
        return 0

    def prepare_rows(self, config: ModelConfig, rows: Rows) -> Places | None:
        return places_of_forks(rows.trunk)

    def on_rows(
        self, config: ModelConfig, layer: Any, x: jax.Array, rows: Rows, prepared: Any
    ) -> tuple[jax.Array, State | None]:
        return layer(x, functools.partial(self._mix_rows, config, layer, rows, prepared))

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
        y, after = layer(x, functools.partial(self._mix_slots, config, layer, slots, before))
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
            y, cache = self._mix_rows(config, layer, rows, prepared[0], *of_rows)
            before = _at_branches(slots, LayerCache(cache))
            more, _ = self._mix_slots(config, layer, slots, before, *of_slots)
            return jnp.concatenate([y, more], axis=1), None

        return layer(x, mix)[0]

    def _mix_rows(
        self,
        config: ModelConfig,
        layer: Any,
        rows: Rows,
        places: Places | None,
        inputs: Inputs,
        gates: tuple[jax.Array, ...],
    ) -> tuple[jax.Array, State | None]:
        """Return y [B, T, channels] of documents, and their states at the places, if there are
        any."""
        segment = rows.trunk.segment[:, None]
        inputs = each(lambda y: y[:, None], inputs)

        def run(y: jax.Array, taps: Taps) -> jax.Array:
            return convolve(y, *taps.arrays(), segment)

        convolved = each(run, inputs, layer.taps)
        mixed = self._activated(config, convolved)
        tokens = layer.tokens(mixed, tuple(gate[:, None] for gate in gates))
        y, state = recur(tokens, segment, chunk=choices().scan_chunk, places=places)
        y = layer.outputs(y, mixed)[:, 0]
        if places is None:
            return y, None
        before = self.sizes(config).taps - 1
        window = each(lambda x: windows_at(x, segment, places, before)[:, 0], inputs)
        return y, self._kept(config, state[:, :, 0], window)

    def _mix_slots(
        self,
        config: ModelConfig,
        layer: Any,
        slots: Slots,
        before: State,
        inputs: Inputs,
        gates: tuple[jax.Array, ...],
    ) -> tuple[jax.Array, State]:
        """Return y [B, N · count, channels] of slots, and the states after them."""
        live = slots.run.live
        grouped = lambda y: y.reshape(*live.shape, -1)

        def run(y: jax.Array, taps: Taps, window: jax.Array) -> tuple[jax.Array, jax.Array]:
            return convolve_live(grouped(y), *taps.arrays(), live, _channels_last(window))

        convolved = each(run, inputs, layer.taps, before.window)
        mixed = self._activated(config, each(operator.itemgetter(0), convolved))
        window = each(operator.itemgetter(1), convolved)
        gates = tuple(jnp.where(live[..., None], grouped(gate), 0) for gate in gates)
        tokens = layer.tokens(mixed, gates)
        if live.shape[-1] == 1:
            y, state = step(jax.tree.map(lambda x: x[:, :, 0], tokens), before.state)
            y = y[:, :, None]
        else:
            of_branch = jnp.ones(live.shape, jnp.int32)
            chunk = choices().scan_chunk
            y, state = recur(tokens, of_branch, chunk=chunk, start=before.state)
        y = layer.outputs(y, mixed)
        return y.reshape(len(y), -1, y.shape[-1]), self._kept(config, state, window)

    def _activated(self, config: ModelConfig, convolved: Inputs) -> Inputs:
        """Apply silu to convolved inputs, and split their channels: [B, N, T, heads or groups,
        …]."""
        active = lambda y: jax.nn.silu(y).astype(config.dtype)
        return self._split(config, each(active, convolved))

    def _split(self, config: ModelConfig, inputs: Inputs) -> Inputs:
        """Split the channels of inputs [..., channels] into heads or groups."""
        sizes = self.sizes(config)
        numbers = Inputs(sizes.heads, sizes.groups, sizes.groups)
        return each(lambda y, number: y.reshape(*y.shape[:-1], number, -1), inputs, numbers)

    def _kept(self, config: ModelConfig, state: jax.Array, window: Inputs) -> State:
        """Return a cache, given windows [B, N, taps - 1, channels]."""
        window = each(lambda y: jnp.moveaxis(y, 3, 1), self._split(config, window))
        state = state.astype(config.dtype_of_states)
        return jax.tree.map(lambda y: constrain(y, "rows", "heads"), State(state, window))

    def trunk_cache(self, config: ModelConfig, rows: int, length: int, forks: int) -> State:
        del length
        return self.branch_cache(config, rows, forks, 0)

    def branch_cache(self, config: ModelConfig, rows: int, branches: int, slots: int) -> State:
        del slots
        s = self.sizes(config)
        heads, groups = (rows, s.heads, branches), (rows, s.groups, branches)
        array = lambda *shape: jax.ShapeDtypeStruct(shape, config.dtype)
        shared = array(*groups, s.taps - 1, s.key_dim)
        return State(
            jax.ShapeDtypeStruct((*heads, s.key_dim, s.head_dim), config.dtype_of_states),
            Inputs(array(*heads, s.taps - 1, s.head_dim), shared, shared),
        )

    def begin(
        self, config: ModelConfig, trunk: Any, trunk_cache: LayerCache, branches: Any, slots: int
    ) -> State:
        select = functools.partial(at_branches, trunk, branches)
        return jax.tree.map(select, trunk_cache.of_layer())

    joins = True

    def joined(self, config: ModelConfig, trunk_cache: State, branch_cache: State) -> State:
        """Each branch becomes a row, and its state that at the fork at its end."""

        def as_row(x: jax.Array) -> jax.Array:
            x = x.swapaxes(1, 2)  # [B, N, heads, …]
            x = x.reshape(-1, *x.shape[2:])
            return constrain(x[:, :, None], "rows", "heads")

        return jax.tree.map(as_row, branch_cache)

    def cost(self, config: ModelConfig, tokens: TrunkTokens | BranchTokens) -> Cost:
        """Decoding counts as if all slots ran at once; both differ by the pairs of a chunk.

        The states after the only chunk of a row are computed for its forks alone.
        """
        s, width, count = self.sizes(config), config.hidden_size, tokens.count
        heads, inner, shared, of_state = s.heads, s.inner, s.shared, s.inner * s.key_dim
        length = tokens.length if isinstance(tokens, TrunkTokens) else len(tokens.slots)
        chunks, chunk = chunks_of(max(length, 1), choices().scan_chunk)
        rows, forks = (tokens.rows, tokens.forks) if isinstance(tokens, TrunkTokens) else (0, 0)
        updates = 2 * count * of_state
        if rows and chunks == 1 and not forks:
            updates = 0
        final = 0 if rows or chunks > 1 else updates
        states = updates + 2 * count * chunk * heads + self.correction(config, count, chunk)
        mixing = states + 2 * count * (of_state + chunk * (shared + inner))
        selected = chunks * chunk * (inner + shared + heads) + (chunks + 1) * of_state
        at_forks = 2 * rows * forks * (selected + chunk * of_state + chunk**2 * heads)
        of_cache = width * (inner + shared + s.gates * heads)
        return Cost(
            linear=2 * count * width * (3 * inner + 2 * shared + s.gates * heads),
            mixing=mixing + at_forks,
            again=mixing - final,
            last=2 * count * width * inner,
            cached=2 * count * of_cache + states + at_forks,
            final=final,
            moved=count * (2 * width + 3 * inner + 2 * shared + s.gates * heads),
            scratch=self.pair_arrays * count * chunk * heads + count * of_state // chunk,
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


def _at_branches(slots: Slots, trunk_cache: LayerCache) -> State:
    """Return what branches begin from: what was cached at their forks."""
    select = functools.partial(at_branches, slots.trunk, slots.branches)
    return jax.tree.map(select, trunk_cache.of_layer())


def _channels_last(window: jax.Array) -> jax.Array:
    """Return a window of a cache, [B, heads, N, taps - 1, …], as [B, N, taps - 1, channels]."""
    window = jnp.moveaxis(window, 1, 3)
    return window.reshape(*window.shape[:3], -1)
