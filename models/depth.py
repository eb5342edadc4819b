"""Through all layers, one after the other: as straight code, or as scans over stacks.

Where the backend wants straight code, parameters and caches are lists of layers. Else they are
stacks, and every run of layers that repeats a unit (`models.pattern`) is one scan, so that compile
time does not grow with depth.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.blocks import block_graph, names, of_kind, ranks
from models.cache import Cache
from models.config import ModelConfig
from models.layers.norm import normed
from models.layers.protocol import LayerCache, LayerKind
from models.layers.registry import Layer, layers, norms
from models.pattern import Run, runs
from models.sharding import at_rest, in_use, parameters_are_split, place

Kept = dict[str, Any]  # name of a kind to what its layers keep, as `Cache.kinds`


@dataclasses.dataclass(frozen=True)
class Pass:
    """What all layers do in a pass.

    Attributes:
      config: of the network.
      prepared: of each kind, what it prepared for the pass.
      apply: `apply(kind, parameters, x, prepared, trunk cache, branch cache)` of one layer gives
        its output and what it keeps: arrays, a `LayerCache` that was written, or None.
      read: caches that are only read, or None.
      written: caches into which the layers write, or None to keep what they give.
    """

    config: ModelConfig
    prepared: Mapping[LayerKind, Any]
    apply: Callable[..., tuple[jax.Array, Any]]
    read: Cache | None = None
    written: Cache | None = None

    def through(self, blocks: Any, x: jax.Array) -> tuple[jax.Array, Kept]:
        """Hidden states [B, S, D] before the final norm, and what was kept.

        Args:
          blocks: parameters; a list of layers runs as straight code.
          x: the embedded tokens.
        """
        if isinstance(blocks, list):
            return self._straight(blocks, x)
        each, found = layers(self.config), []
        written = dict(self.written.kinds) if self.written else {}
        for run in runs(tuple(names(kinds) for kinds in each)):
            scan = _Scan(self, run, each, ranks(each))
            if self.written:
                x, written = scan.further(blocks, x, written)
            else:
                x, kept = scan.fresh(blocks, x)
                found.append(kept)
        return x, written if self.written else _joined(found)

    def _straight(self, blocks: list[Any], x: jax.Array) -> tuple[jax.Array, Kept]:
        """One layer after the other; caches are lists."""
        kept: Kept = {}
        each = layers(self.config)
        for kinds, places, params in zip(each, ranks(each), blocks, strict=True):
            caches = [
                {n: LayerCache(cache.kinds[n][i]) for n, i in places.items() if n in cache.kinds}
                if cache
                else {}
                for cache in (self.read, self.written)
            ]
            x, new = self.layer([kinds], scanned=False)(x, params, *caches)
            for name, arrays in new.items():
                kept.setdefault(name, []).append(arrays)
        return x, kept

    def layer(self, options: Sequence[Layer], *, scanned: bool) -> Callable:
        """One layer, with its activations kept (`model.remat` "none"), or computed again in the
        backward pass.

        Gathered parameters are never kept: those of all layers would be the whole network. Outside
        of a scan the compiler must be kept from merging the second computation with the first.
        """
        run, policy = functools.partial(self._layer, options), self.config.remat
        saveable: Callable | None = at_rest
        if (scanned and self.written) or (policy == "none" and not parameters_are_split()):
            return run
        if policy != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            saveable = dots if policy == "dots" else None
        return jax.checkpoint(run, policy=saveable, prevent_cse=not scanned)

    def _layer(
        self,
        options: Sequence[Layer],
        x: jax.Array,
        params: Any,
        read: Mapping[str, LayerCache],
        written: Mapping[str, LayerCache],
        option: jax.Array | int = 0,
    ) -> tuple[jax.Array, Kept]:
        """One layer, which is one of `options`; `option` may be traced."""
        graph = block_graph(self.config, options[0])
        block, kept = nnx.merge(graph, in_use(params, "blocks", x.dtype)), {}
        x = place(x, "rows")
        for each in zip(*options, strict=True):
            name = each[0].name
            before, after = (getattr(block, norm) for norm in norms(name))
            y, new = self.apply(
                each[0],
                getattr(block, name),
                normed(before, x),
                self._prepared(each, option),
                read.get(name),
                written.get(name),
            )
            x = x + normed(after, y)
            if new is not None:
                kept[name] = new.arrays if isinstance(new, LayerCache) else new
        return place(x, "rows"), kept

    def _prepared(self, kinds: Sequence[LayerKind], option: jax.Array | int) -> Any:
        """What was prepared for one of these kinds, which differ in nothing else."""
        found = self.prepared[kinds[0]]
        for number, kind in enumerate(kinds[1:], 1):
            if kind != kinds[0]:
                chosen = functools.partial(jnp.where, option == number)
                found = jax.tree.map(chosen, self.prepared[kind], found)
        return found


def _joined(found: Sequence[Kept]) -> Kept:
    """What all runs kept, as one stack for each kind."""
    every = dict.fromkeys(name for kept in found for name in kept)
    parts = {name: [kept[name] for kept in found if name in kept] for name in every}
    join = lambda *each: each[0] if len(each) == 1 else jnp.concatenate(each)
    return {name: jax.tree.map(join, *of_runs) for name, of_runs in parts.items()}


@dataclasses.dataclass(frozen=True)
class _Scan:
    """A scan over the repeats of a unit of layers; caches are stacked.

    Attributes:
      step: what the layers do.
      run: the layers.
      layers: all of the network.
      ranks: of each of those, its place in the stacks of its kinds.
    """

    step: Pass
    run: Run
    layers: Sequence[Layer]
    ranks: Sequence[Mapping[str, int]]

    def fresh(self, stacks: Mapping[str, Any], x: jax.Array) -> tuple[jax.Array, Kept]:
        """x through the run, and what its layers gave to be kept."""
        cached = self.step.read.kinds if self.step.read else {}

        def repeat(x: jax.Array, part: tuple) -> tuple[jax.Array, Kept]:
            params, options, read = part
            kept: Kept = {}
            for i in self._unit:
                cut = lambda name, i=i: LayerCache(self._pick(i, name, read[name]))
                caches = {name: cut(name) for name in self.ranks[i] if name in read}
                x, new = self._layer(i, x, params, caches, {}, options)
                for name, arrays in new.items():
                    kept.setdefault(name, []).append(arrays)
            return x, {name: _together(each) for name, each in kept.items()}

        x, kept = jax.lax.scan(
            repeat, x, (self._params(stacks), self._options(), self._cut(cached))
        )
        return x, {name: self._flat(name, arrays) for name, arrays in kept.items()}

    def further(
        self, stacks: Mapping[str, Any], x: jax.Array, written: Kept
    ) -> tuple[jax.Array, Kept]:
        """x through the run, and the caches that were written.

        Those are carried and changed in place: as an output of the scan they would be copied whole.
        A layer is given stacks and its place in them, and need not copy its part out.
        """
        read = self.step.read.kinds if self.step.read else {}

        def repeat(carry: tuple, part: tuple) -> tuple:
            (x, whole), (params, options, number) = carry, part
            for i in self._unit:
                in_stacks = lambda kinds, i=i: {
                    name: LayerCache(kinds[name], self._place(i, name, number))
                    for name in self.ranks[i]
                    if name in kinds
                }
                x, new = self._layer(i, x, params, in_stacks(read), in_stacks(whole), options)
                whole = whole | new
            return (x, whole), None

        parts = self._params(stacks), self._options(), jnp.arange(self.run.times)
        return jax.lax.scan(repeat, (x, written), parts)[0]

    def _layer(
        self,
        i: int,
        x: jax.Array,
        params: Kept,
        read: Mapping[str, LayerCache],
        written: Mapping[str, LayerCache],
        options: Sequence[jax.Array],
    ) -> tuple[jax.Array, Kept]:
        """Layer i of the unit, with its part of the parameters and options of a repeat."""
        of_layer: Kept = {}
        for name in self.ranks[i]:
            of_layer |= self._pick(i, name, params[name])
        layer = self.step.layer(self._variants(i), scanned=True)
        return layer(x, of_layer, read, written, options[i - self.run.first])

    @property
    def _unit(self) -> range:
        """The layers of the first repeat."""
        return range(self.run.first, self.run.first + self.run.unit)

    def _repeats(self, i: int) -> Sequence[Layer]:
        """The layers that stand in the place of layer i, one for each repeat."""
        return self.layers[i : i + self.run.unit * self.run.times : self.run.unit]

    def _variants(self, i: int) -> list[Layer]:
        """The different ones of those."""
        return list(dict.fromkeys(self._repeats(i)))

    def _options(self) -> list[jax.Array]:
        """Of each layer of the unit, the number of its variant in each repeat."""
        numbers = lambda i: [self._variants(i).index(kinds) for kinds in self._repeats(i)]
        return [jnp.asarray(numbers(i)) for i in self._unit]

    def _span(self, name: str) -> tuple[int, int]:
        """The place of the run's first layer of a kind in its stack, and how many a repeat has."""
        places = [self.ranks[i][name] for i in self._unit if name in self.ranks[i]]
        return (places[0], len(places)) if places else (0, 0)

    def _place(self, i: int, name: str, number: jax.Array) -> jax.Array:
        """The place in its stack of layer i of the unit, in repeat `number`."""
        return self.ranks[i][name] + number * self._span(name)[1]

    def _params(self, stacks: Mapping[str, Any]) -> Kept:
        """The run's part of the parameters of its kinds."""
        every = dict.fromkeys(name for i in self._unit for name in self.ranks[i])
        return self._cut({name: of_kind(stacks, name) for name in every})

    def _cut(self, stacks: Mapping[str, Any]) -> Kept:
        """The run's part of stacks, [repeats, …], or [repeats, layers of a repeat, …]."""

        def part(x: jax.Array, first: int, each: int) -> jax.Array:
            size = each * self.run.times
            x = x if len(x) == size else x[first : first + size]
            return x if each == 1 else x.reshape(-1, each, *x.shape[1:])

        cut = lambda name, stack: jax.tree.map(lambda x: part(x, *self._span(name)), stack)
        return {name: cut(name, stack) for name, stack in stacks.items() if self._span(name)[1]}

    def _pick(self, i: int, name: str, part: Any) -> Any:
        """Layer i's, of what one repeat has of a kind."""
        first, each = self._span(name)
        return part if each == 1 else jax.tree.map(lambda x: x[self.ranks[i][name] - first], part)

    def _flat(self, name: str, arrays: Any) -> Any:
        """What all repeats gave, as one stack of layers."""
        flat = lambda y: y.reshape(-1, *y.shape[2:])
        return arrays if self._span(name)[1] == 1 else jax.tree.map(flat, arrays)


def _together(each: Sequence[Any]) -> Any:
    """What the layers of a repeat gave, stacked where there are several."""
    return each[0] if len(each) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *each)
