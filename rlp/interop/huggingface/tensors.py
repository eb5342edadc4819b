"""The map between their tensors and our parameters, checked; `models.hf` makes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.hf import Tensor


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
