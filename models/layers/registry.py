"""The letters of `model.layer_pattern`, and the kinds of layers for which each stands.

A letter is one layer of the network: one kind or several in sequence, each with its norms and its
addition to the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.layers.attention import Attention
from models.layers.delta_net import DeltaNet
from models.layers.feed_forward import FeedForward, PlainFeed
from models.layers.mamba import Mamba2
from models.layers.protocol import LayerKind
from models.sharding import LOGICAL_AXES

if TYPE_CHECKING:
    from models.config import ModelConfig

Layer = tuple[LayerKind, ...]

_LAYERS: dict[str, Layer] = {}
LAYERS: Mapping[str, Layer] = _LAYERS


def register(letter: str, *kinds: LayerKind) -> None:
    """Register a letter of `model.layer_pattern`.

    Args:
      letter: one character.
      *kinds: the kinds of the layer, in their order.

    Raises:
      ValueError: If the letter is taken, or two kinds of the layer have the same name.
    """
    if len(letter) != 1 or LAYERS.get(letter, kinds) != kinds:
        raise ValueError(
            f"letter {letter!r} of model.layer_pattern is taken or not one character; use another"
        )
    if not kinds or len({kind.name for kind in kinds}) < len(kinds):
        raise ValueError(f"layer {letter!r} needs at least one kind, and each kind only once")
    _LAYERS[letter] = kinds
    for kind in kinds:
        axes = {f"{kind.name}/{path}": logical for path, logical in kind.axes.items()}
        axes |= {f"{norm}/scale": ("norm",) for norm in norms(kind.name)}
        LOGICAL_AXES.update(
            {f"blocks/{path}": ("layers", *logical) for path, logical in axes.items()}
        )


def norms(name: str) -> tuple[str, str]:
    """Return the names of the norms before and after the kind of this name."""
    return f"{name}_norm", f"{name}_post_norm"


def layers(config: ModelConfig) -> tuple[Layer, ...]:
    """Return the kinds of every layer, from first to last."""
    return tuple(LAYERS[letter] for letter in config.letters)


def layer_counts(config: ModelConfig) -> dict[Layer, int]:
    """Return the number of layers of each kind of layer, in time independent of `num_layers`."""
    whole, rest = divmod(config.num_layers, len(config.layer_pattern))
    counts: dict[Layer, int] = {}
    for i, letter in enumerate(config.layer_pattern):
        count = whole + (i < rest)
        if count:
            counts[LAYERS[letter]] = counts.get(LAYERS[letter], 0) + count
    return counts


def kind_counts(config: ModelConfig) -> dict[LayerKind, int]:
    """Return the number of layers that have each kind."""
    counts: dict[LayerKind, int] = {}
    for layer, count in layer_counts(config).items():
        for kind in layer:
            counts[kind] = counts.get(kind, 0) + count
    return counts


def check_layers(config: ModelConfig, tensor: int) -> None:
    """Check that all kinds of layers support a config, with `tensor` devices sharing a row.

    Raises:
      ValueError: If one does not; the message names the field.
    """
    for kind in kind_counts(config):
        kind.check(config, tensor)


register("G", Attention(), FeedForward())
register("L", Attention(local=True), FeedForward())
# Qwen3.5 has three of four layers with DeltaNet in place of attention.
register("D", DeltaNet(), FeedForward())
# Networks of Mamba-2, attention and feed-forward, as Nemotron-H writes them.
register("M", Mamba2())
register("*", Attention(rotary=False))
register("-", PlainFeed())
