"""The letters of `model.layer_pattern`, and the kinds of layers that each stands for.

A letter is one layer of the network: one kind or several, one after the other, each with norms of
its own and added to the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.layers.attention import Attention
from models.layers.feed_forward import FeedForward
from models.layers.protocol import LayerKind
from models.sharding import LOGICAL_AXES

if TYPE_CHECKING:
    from models.config import ModelConfig

Layer = tuple[LayerKind, ...]

_LAYERS: dict[str, Layer] = {}
LAYERS: Mapping[str, Layer] = _LAYERS


def register(letter: str, *kinds: LayerKind) -> None:
    """Gives a letter of `model.layer_pattern` its meaning.

    Args:
      letter: one character.
      kinds: of the layer, in their order.

    Raises:
      ValueError: the letter means something else, or two kinds of a layer have one name.
    """
    if len(letter) != 1 or LAYERS.get(letter, kinds) != kinds:
        raise ValueError(f"letter {letter!r} of model.layer_pattern is taken or not one character")
    if not kinds or len({kind.name for kind in kinds}) < len(kinds):
        raise ValueError(f"layer {letter!r} needs at least one kind, and each of them once")
    _LAYERS[letter] = kinds
    for kind in kinds:
        axes = {f"{kind.name}/{path}": of for path, of in kind.axes.items()}
        axes |= {f"{norm}/scale": ("norm",) for norm in norms(kind.name)}
        LOGICAL_AXES.update({f"blocks/{path}": ("layers", *of) for path, of in axes.items()})


def norms(name: str) -> tuple[str, str]:
    """The names of the norms before and after the kind of this name."""
    return f"{name}_norm", f"{name}_post_norm"


def layers(config: ModelConfig) -> tuple[Layer, ...]:
    """The kinds of every layer, first to last."""
    return tuple(LAYERS[letter] for letter in config.letters)


def layer_counts(config: ModelConfig) -> dict[Layer, int]:
    """How many layers there are of each letter, without going through all of them."""
    whole, rest = divmod(config.num_layers, len(config.layer_pattern))
    found: dict[Layer, int] = {}
    for i, letter in enumerate(config.layer_pattern):
        count = whole + (i < rest)
        if count:
            found[LAYERS[letter]] = found.get(LAYERS[letter], 0) + count
    return found


def kind_counts(config: ModelConfig) -> dict[LayerKind, int]:
    """How many layers have each kind."""
    found: dict[LayerKind, int] = {}
    for layer, count in layer_counts(config).items():
        for kind in layer:
            found[kind] = found.get(kind, 0) + count
    return found


def check_layers(config: ModelConfig, tensor: int) -> None:
    """Refuses a network that its layers cannot compute, with `tensor` devices sharing a row.

    Raises:
      ValueError: why, naming the field.
    """
    for kind in kind_counts(config):
        kind.check(config, tensor)


register("G", Attention(), FeedForward())
register("L", Attention(local=True), FeedForward())
