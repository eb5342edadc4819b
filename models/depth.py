"""Run x through all layers, either unrolled or as scans over stacks of layers.

If layers are unrolled (`models.backend`), parameters and caches are lists with one entry for each
layer. Otherwise they are stacks, and every run of layers that repeats a unit (`models.pattern`) is
one scan, so that compile time does not grow with depth.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.backend import choices
from models.bits import saving_bits
from models.blocks import block_graph, names, of_kind, stack_indices
from models.cache import Cache
from models.config import ModelConfig
from models.layers.norm import normed
from models.layers.protocol import LayerCache, LayerKind
from models.layers.registry import Layer, layers, norms
from models.pattern import Run, runs
from models.sharding import at_rest, constrain, in_use, parameters_are_split

Caches = dict[str, Any]  # name of a kind to the caches of its layers, as `Cache.kinds`


@dataclasses.dataclass(frozen=True)
class Pass:
    """A pass over all layers.

    Attributes:
      config: config of the network.
      prepared: what each kind prepared for the pass (`LayerKind.prepare_rows`, `prepare_slots`).
      apply: `apply(kind, parameters, x, prepared, trunk cache, branch cache)` runs one layer and
        returns its output and its new cache: arrays, a `LayerCache` that was written, or None.
      read: caches that are only read, or None.
      written: caches into which the layers write, or None to collect the caches they return.
    """

    config: ModelConfig
    prepared: Mapping[LayerKind, Any]
    apply: Callable[..., tuple[jax.Array, Any]]
    read: Cache | None = None
    written: Cache | None = None

    def through(self, blocks: Any, x: jax.Array) -> tuple[jax.Array, Caches]:
        """Return hidden states [B, S, D] before the final norm, and the caches.

        Args:
          blocks: parameters: stacks, or a list of layers, which are unrolled.
          x: embedded tokens, [B, S, D].
        """
        if isinstance(blocks, list):
            return self._unrolled(blocks, x)
        all_layers, of_runs = layers(self.config), []
        written = dict(self.written.kinds) if self.written else {}
        for run in runs(tuple(names(kinds) for kinds in all_layers)):
            scan = _Scan(self, run, all_layers, stack_indices(all_layers))
            if self.written:
                x, written = scan.write_caches(blocks, x, written)
            else:
                x, new = scan.collect_caches(blocks, x)
                of_runs.append(new)
        return x, written if self.written else _concatenate(of_runs)

    def _unrolled(self, blocks: list[Any], x: jax.Array) -> tuple[jax.Array, Caches]:
        """Run the layers without a scan; caches are lists.

        In a decoding step, which unrolls many layers, equal ones are traced only once. (In a pass
        with a gradient, the compiler would fuse other operations than without one, and round
        bfloat16 differently.)
        """
        collected: Caches = {}
        once = jax.jit if self.written else lambda run: run
        layer = functools.cache(lambda kinds: once(self.layer([kinds], scanned=False)))
        all_layers = layers(self.config)
        for kinds, indices, params in zip(
            all_layers, stack_indices(all_layers), blocks, strict=True
        ):
            caches = [
                {n: LayerCache(cache.kinds[n][i]) for n, i in indices.items() if n in cache.kinds}
                if cache
                else {}
                for cache in (self.read, self.written)
            ]
            x, new = layer(kinds)(x, params, *caches)
            for name, arrays in new.items():
                collected.setdefault(name, []).append(arrays)
        return x, collected

    def layer(self, options: Sequence[Layer], *, scanned: bool) -> Callable:
        """Return the function of one layer, with rematerialization according to `model.remat`.

        Parameters as they are used, gathered and cast, are never saved for the backward pass: those
        of all layers would be the whole network. Outside a scan, `prevent_cse` keeps the compiler
        from merging the recomputed layer with the first computation.
        """
        run: Callable = functools.partial(self._layer, options)
        policy = self.config.remat
        saveable: Callable | None = at_rest
        bits = scanned and self.config.dtype == jnp.bfloat16 and choices().bfloat16_as_bits
        if scanned and self.written:
            return run
        if policy == "none" and not parameters_are_split() and not bits:
            return run
        if policy != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            saveable = dots if policy == "dots" else None
        run = jax.checkpoint(run, policy=saveable, prevent_cse=not scanned)
        return saving_bits(run) if bits else run

    def _layer(
        self,
        options: Sequence[Layer],
        x: jax.Array,
        params: Any,
        read: Mapping[str, LayerCache],
        written: Mapping[str, LayerCache],
        option: jax.Array | int = 0,
    ) -> tuple[jax.Array, Caches]:
        """Run the layer `options[option]`; `option` may be traced."""
        graph = block_graph(self.config, options[0])
        block, caches = nnx.merge(graph, in_use(params, "blocks", x.dtype)), {}
        x = constrain(x, "rows")
        for kinds in zip(*options, strict=True):
            name = kinds[0].name
            before, after = (getattr(block, norm) for norm in norms(name))
            y, new = self.apply(
                kinds[0],
                getattr(block, name),
                normed(before, x),
                self._prepared(kinds, option),
                read.get(name),
                written.get(name),
            )
            x = x + normed(after, y)
            if new is not None:
                caches[name] = new.arrays if isinstance(new, LayerCache) else new
        return constrain(x, "rows"), caches

    def _prepared(self, kinds: Sequence[LayerKind], option: jax.Array | int) -> Any:
        """Select what was prepared for `kinds[option]`; the kinds differ in nothing else."""
        selected = self.prepared[kinds[0]]
        for number, kind in enumerate(kinds[1:], 1):
            if kind != kinds[0]:
                select = functools.partial(jnp.where, option == number)
                selected = jax.tree.map(select, self.prepared[kind], selected)
        return selected


def _concatenate(of_runs: Sequence[Caches]) -> Caches:
    """Concatenate the caches of all runs to one stack for each kind."""
    all_names = dict.fromkeys(name for caches in of_runs for name in caches)
    parts = {name: [caches[name] for caches in of_runs if name in caches] for name in all_names}
    join = lambda *arrays: arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)
    return {name: jax.tree.map(join, *stacks) for name, stacks in parts.items()}


@dataclasses.dataclass(frozen=True)
class _Scan:
    """A scan over the repeats of a unit of layers; caches are stacked.

    Attributes:
      layer_pass: the pass.
      run: the layers of the scan.
      layers: all layers of the network.
      indices: for each of those, its index in the stacks of its kinds.
    """

    layer_pass: Pass
    run: Run
    layers: Sequence[Layer]
    indices: Sequence[Mapping[str, int]]

    def collect_caches(self, stacks: Mapping[str, Any], x: jax.Array) -> tuple[jax.Array, Caches]:
        """Run x through the layers, and return it with the caches that they return."""
        cached = self.layer_pass.read.kinds if self.layer_pass.read else {}

        def repeat(x: jax.Array, part: tuple) -> tuple[jax.Array, Caches]:
            params, options, read = part
            collected: Caches = {}
            for i in self._unit:
                cut = lambda name, i=i: LayerCache(self._pick(i, name, read[name]))
                caches = {name: cut(name) for name in self.indices[i] if name in read}
                x, new = self._layer(i, x, params, caches, {}, options)
                for name, arrays in new.items():
                    collected.setdefault(name, []).append(arrays)
            return x, {name: _stack(arrays) for name, arrays in collected.items()}

        x, collected = jax.lax.scan(
            repeat, x, (self._params(stacks), self._options(), self._cut(cached))
        )
        return x, {name: self._flat(name, arrays) for name, arrays in collected.items()}

    def write_caches(
        self, stacks: Mapping[str, Any], x: jax.Array, written: Caches
    ) -> tuple[jax.Array, Caches]:
        """Run x through the layers, and return it with the caches into which they wrote.

        The caches are in the carry of the scan, which is updated in place; as outputs of the scan
        they would be copied. A layer receives whole stacks and its index in them, so it does not
        have to copy its part out.
        """
        read = self.layer_pass.read.kinds if self.layer_pass.read else {}

        def repeat(carry: tuple, part: tuple) -> tuple:
            (x, whole), (params, options, number) = carry, part
            for i in self._unit:
                in_stacks = lambda kinds, i=i: {
                    name: LayerCache(kinds[name], self._index(i, name, number))
                    for name in self.indices[i]
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
        params: dict[str, Any],
        read: Mapping[str, LayerCache],
        written: Mapping[str, LayerCache],
        options: Sequence[jax.Array],
    ) -> tuple[jax.Array, Caches]:
        """Run layer i of the unit, with its part of the parameters and options of a repeat."""
        of_layer: dict[str, Any] = {}
        for name in self.indices[i]:
            of_layer |= self._pick(i, name, params[name])
        layer = self.layer_pass.layer(self._variants(i), scanned=True)
        return layer(x, of_layer, read, written, options[i - self.run.first])

    @property
    def _unit(self) -> range:
        """Indices of the layers of the first repeat."""
        return range(self.run.first, self.run.first + self.run.unit)

    def _repeats(self, i: int) -> Sequence[Layer]:
        """Return the layers at the position of layer i in the unit, one for each repeat."""
        return self.layers[i : i + self.run.unit * self.run.times : self.run.unit]

    def _variants(self, i: int) -> list[Layer]:
        """Return the distinct layers at the position of layer i."""
        return list(dict.fromkeys(self._repeats(i)))

    def _options(self) -> list[jax.Array]:
        """Return for each layer of the unit the index of its variant in each repeat."""
        numbers = lambda i: [self._variants(i).index(kinds) for kinds in self._repeats(i)]
        return [jnp.asarray(numbers(i)) for i in self._unit]

    def _span(self, name: str) -> tuple[int, int]:
        """Return the index of the run's first layer of a kind in its stack, and the number of such
        layers in a repeat."""
        indices = [self.indices[i][name] for i in self._unit if name in self.indices[i]]
        return (indices[0], len(indices)) if indices else (0, 0)

    def _index(self, i: int, name: str, number: jax.Array) -> jax.Array:
        """Return the index in its stack of layer i of the unit, in repeat `number`."""
        return self.indices[i][name] + number * self._span(name)[1]

    def _params(self, stacks: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's part of the parameters of its kinds."""
        all_names = dict.fromkeys(name for i in self._unit for name in self.indices[i])
        return self._cut({name: of_kind(stacks, name) for name in all_names})

    def _cut(self, stacks: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run's part of stacks, [repeats, …] or [repeats, layers of a repeat, …]."""

        def part(x: jax.Array, first: int, per_repeat: int) -> jax.Array:
            size = per_repeat * self.run.times
            x = x if len(x) == size else x[first : first + size]
            return x if per_repeat == 1 else x.reshape(-1, per_repeat, *x.shape[1:])

        cut = lambda name, stack: jax.tree.map(lambda x: part(x, *self._span(name)), stack)
        return {name: cut(name, stack) for name, stack in stacks.items() if self._span(name)[1]}

    def _pick(self, i: int, name: str, part: Any) -> Any:
        """Return the part of layer i in one repeat's arrays of a kind."""
        first, per_repeat = self._span(name)
        if per_repeat == 1:
            return part
        return jax.tree.map(lambda x: x[self.indices[i][name] - first], part)

    def _flat(self, name: str, arrays: Any) -> Any:
        """Reshape the stacked outputs of all repeats to one stack of layers."""
        flat = lambda y: y.reshape(-1, *y.shape[2:])
        return arrays if self._span(name)[1] == 1 else jax.tree.map(flat, arrays)


def _stack(arrays: Sequence[Any]) -> Any:
    """Stack the outputs of a repeat's layers, if there are several."""
    return arrays[0] if len(arrays) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *arrays)
