"""What reading and writing ask of the map between their tensors and our parameters.

The map itself is made by `models.hf`, which knows the architectures and touches no file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax


class Tensor(Protocol):
    """One tensor of a Hugging Face file, and its place among our parameters.

    Attributes:
      name: its name there.
      shape: its shape there.
      path: of our parameter, as in "blocks/attention/q/kernel".
      layer: index on the first axis of our parameter; None where it is not stacked over layers.
      copy_of: the tensor that this one repeats, where weights are tied. A file may lack it.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def path(self) -> str: ...
    @property
    def layer(self) -> int | None: ...
    @property
    def copy_of(self) -> str: ...

    def ours(self, x: Any) -> Any:
        """Their array to ours, of one layer."""

    def theirs(self, x: Any) -> Any:
        """The inverse of `ours`."""


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a nested dict by their paths, as in "blocks/attention/q/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def stacked_layers(tensors: Sequence[Tensor], leaves: Mapping[str, Any]) -> dict[str, int]:
    """How many layers each of the stacked parameters has, by path; copies aside.

    Raises:
      ValueError: the tensors do not cover each of the `leaves`, every layer of it, exactly once.
    """
    layers: dict[str, list[int | None]] = {}
    for tensor in tensors:
        if not tensor.copy_of:
            layers.setdefault(tensor.path, []).append(tensor.layer)
    if odd := layers.keys() ^ leaves.keys():
        raise ValueError(f"only in the tensors, or only in the parameters: {sorted(odd)}")
    for path, present in layers.items():
        if present != [None] and set(present) != set(range(len(present))):
            raise ValueError(f"tensors of {path} are of layers {present}")
    return {path: len(present) for path, present in layers.items() if present != [None]}
