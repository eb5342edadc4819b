"""The parameters of all layers: one stack for each kind of layer, `blocks/<name>/…`, and its norms.

A network of attention and feed-forward has `blocks/attention/q/kernel` [layers, D, heads],
`blocks/attention_norm/scale` and so on. If layers differ in kind, the stack of a kind contains only
the layers that have it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.config import ModelConfig
from models.layers.norm import RMSNorm
from models.layers.registry import LAYERS, Layer, layers, norms


class Block(nnx.Module):
    """The parameters of one layer: those of its kinds and of the norms before and after each kind,
    which are None if `config.norm` does not use them."""

    def __init__(self, config: ModelConfig, kinds: Layer, key: jax.Array):
        norm = lambda where: RMSNorm(config.hidden_size, config) if where else None
        for kind, of_kind in zip(kinds, jax.random.split(key, len(kinds)), strict=True):
            before, after = norms(kind.name)
            setattr(self, before, norm(config.norm != "after"))
            setattr(self, kind.name, kind.init(config, of_kind))
            setattr(self, after, norm(config.norm != "before"))


@functools.cache
def block_graph(config: ModelConfig, kinds: Layer) -> nnx.GraphDef:
    """Return the graph definition that turns the parameters of a layer into a `Block`."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, kinds, jax.random.key(0))))[0]


def init_blocks(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Initialize the parameters of all layers, stacked for each kind."""
    keys = jax.random.split(key, config.num_layers)
    pattern = [LAYERS[letter] for letter in config.layer_pattern[: config.num_layers]]
    if len({names(kinds) for kinds in pattern}) == 1:  # all layers are in one stack
        pattern = pattern[:1]
    stacks: dict[str, list[Any]] = {}  # for each kind, a stack for each position in the pattern
    for number, kinds in enumerate(pattern):
        make = lambda k, kinds=kinds: _pure(Block(config, kinds, k))
        stack = jax.vmap(make)(keys[number :: len(pattern)])
        for kind in kinds:
            stacks.setdefault(kind.name, []).append(of_kind(stack, kind.name))
    merged: dict[str, Any] = {}
    for of_positions in stacks.values():
        merged |= jax.tree.map(lambda *arrays: _interleave(arrays), *of_positions)
    return merged


def _pure(module: nnx.Module) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.split(module)[1])


def _interleave(stacks: Sequence[jax.Array]) -> jax.Array:
    """Interleave the layers of several stacks; the first stacks may have one layer more."""
    if len(stacks) == 1:
        return stacks[0]
    rounds = len(stacks[-1])
    whole = jnp.stack([x[:rounds] for x in stacks], axis=1).reshape(-1, *stacks[0].shape[1:])
    return jnp.concatenate([whole, *(x[rounds:] for x in stacks)])


def names(kinds: Layer) -> tuple[str, ...]:
    """Return the names of a layer's kinds."""
    return tuple(kind.name for kind in kinds)


def of_kind(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Select the parameters of a kind and of its norms from those of blocks."""
    return {key: params[key] for key in (name, *norms(name)) if key in params}


def stack_indices(all_layers: Sequence[Layer]) -> list[dict[str, int]]:
    """Return for every layer its index in the stack of each of its kinds."""
    counts: dict[str, int] = {}
    indices = []
    for kinds in all_layers:
        indices.append({name: counts.get(name, 0) for name in names(kinds)})
        counts |= {name: index + 1 for name, index in indices[-1].items()}
    return indices


def layer_numbers(config: ModelConfig) -> dict[str, list[int]]:
    """Return for each key of `blocks` the layers of its stack: the number of each one's layer."""
    numbers: dict[str, list[int]] = {}
    for number, kinds in enumerate(layers(config)):
        for name in names(kinds):
            for key in (name, *norms(name)):
                numbers.setdefault(key, []).append(number)
    return numbers


def unstack(config: ModelConfig, stacks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split the stacks into the parameters of each layer."""
    slices = jax.tree.map(_slices, stacks)
    params_of_layers: list[dict[str, Any]] = []
    for indices in stack_indices(layers(config)):
        params: dict[str, Any] = {}
        for name, index in indices.items():
            layer = lambda x, index=index: x[index]
            params |= jax.tree.map(layer, of_kind(slices, name), is_leaf=_is_tuple)
        params_of_layers.append(params)
    return params_of_layers


def _is_tuple(x: Any) -> bool:
    return isinstance(x, tuple)


@jax.custom_vjp
def _slices(stack: jax.Array) -> tuple[jax.Array, ...]:
    """Split a stack along its first axis. The gradient is written once, as a stack of the
    gradients; that of indexing would be a sum of as many padded arrays as there are layers."""
    return tuple(stack)


_slices.defvjp(lambda stack: (tuple(stack), None), lambda _, slopes: (jnp.stack(slopes),))
