"""The parameters of all layers: of each kind one stack, `blocks/<name>/…`, its norms beside it.

A network of attention and feed-forward has `blocks/attention/q/kernel` [layers, D, heads],
`blocks/attention_norm/scale` and so on; one that mixes layers has shorter stacks, of the layers
that have the kind.
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
    """One layer's parameters: its kinds, and their norms before, after or on both sides; None where
    there is no norm."""

    def __init__(self, config: ModelConfig, kinds: Layer, key: jax.Array):
        norm = lambda where: RMSNorm(config.hidden_size, config) if where else None
        for kind, of_kind in zip(kinds, jax.random.split(key, len(kinds)), strict=True):
            before, after = norms(kind.name)
            setattr(self, before, norm(config.norm != "after"))
            setattr(self, kind.name, kind.init(config, of_kind))
            setattr(self, after, norm(config.norm != "before"))


@functools.cache
def block_graph(config: ModelConfig, kinds: Layer) -> nnx.GraphDef:
    """What makes a `Block` of the parameters of a layer."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, kinds, jax.random.key(0))))[0]


def init_blocks(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters of all layers."""
    keys = jax.random.split(key, config.num_layers)
    pattern = [LAYERS[letter] for letter in config.layer_pattern[: config.num_layers]]
    if len({names(kinds) for kinds in pattern}) == 1:  # all layers are one stack
        pattern = pattern[:1]
    found: dict[str, list[Any]] = {}  # of each kind, stacks of the layers at places of the pattern
    for number, kinds in enumerate(pattern):
        make = lambda k, kinds=kinds: _pure(Block(config, kinds, k))
        stack = jax.vmap(make)(keys[number :: len(pattern)])
        for kind in kinds:
            found.setdefault(kind.name, []).append(of_kind(stack, kind.name))
    merged: dict[str, Any] = {}
    for stacks in found.values():
        merged |= jax.tree.map(lambda *each: _taking_turns(each), *stacks)
    return merged


def _pure(module: nnx.Module) -> dict[str, Any]:
    return nnx.to_pure_dict(nnx.split(module)[1])


def _taking_turns(each: Sequence[jax.Array]) -> jax.Array:
    """One stack of several whose layers take turns; the first ones may have one more."""
    if len(each) == 1:
        return each[0]
    rounds = len(each[-1])
    turns = jnp.stack([x[:rounds] for x in each], axis=1).reshape(-1, *each[0].shape[1:])
    return jnp.concatenate([turns, *(x[rounds:] for x in each)])


def names(kinds: Layer) -> tuple[str, ...]:
    """The names of a layer's kinds."""
    return tuple(kind.name for kind in kinds)


def of_kind(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of the parameters of blocks, those of a kind and of its norms."""
    return {key: params[key] for key in (name, *norms(name)) if key in params}


def ranks(each: Sequence[Layer]) -> list[dict[str, int]]:
    """Of every layer, its place in the stack of each of its kinds."""
    counts: dict[str, int] = {}
    found = []
    for kinds in each:
        found.append({name: counts.get(name, 0) for name in names(kinds)})
        counts |= {name: rank + 1 for name, rank in found[-1].items()}
    return found


def taken_apart(config: ModelConfig, stacks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of each layer alone."""
    found: list[dict[str, Any]] = []
    for of_layer in ranks(layers(config)):
        params: dict[str, Any] = {}
        for name, rank in of_layer.items():
            params |= jax.tree.map(lambda x, rank=rank: x[rank], of_kind(stacks, name))
        found.append(params)
    return found
